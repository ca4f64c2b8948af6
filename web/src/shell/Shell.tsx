import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate, useParams } from "@tanstack/react-router";
import { useEffect, useId, useState } from "react";
import type { Me, Membership } from "../api/types";
import { Boundary, Failure } from "../design/Loaded";
import { icons } from "../design/icons";
import { Button, CopyIcon } from "../design/parts";
import { Live, LinkState } from "../live/Live";
import { sectionsOf } from "../session/sections";
import { meQuery, networkQuery, signOut } from "../session/session";
import { Mark } from "./Mark";
import { chooseTheme, currentTheme, type Theme } from "./theme";

/** The frame of every signed-in page. */
export function Shell() {
  const { org } = useParams({ from: "/o/$org" });
  const { data: me } = useQuery(meQuery);
  const navigate = useNavigate();
  useEffect(() => {
    if (me === null) void navigate({ to: "/", search: { next: location.pathname + location.search } });
  }, [me, navigate]);
  if (me === null || me === undefined) return null;
  const membership = me.organisations.find((one) => one.org_id === org);
  return (
    <Live org={org}>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <Header me={me} org={org} />
      <div className="frame">
        {membership !== undefined && <Sections membership={membership} />}
        <main id="main" tabIndex={-1}>
          {membership === undefined ? <NoSuchOrganisation /> : <Boundary key={org}><Outlet /></Boundary>}
        </main>
      </div>
    </Live>
  );
}

function NoSuchOrganisation() {
  return (
    <div className="page">
      <h1>Not found</h1>
      <p className="muted">There is no such organisation, or you are not a member of it.</p>
      <p>
        <Link to="/">Go to your own</Link>
      </p>
    </div>
  );
}

function Header({ me, org }: { me: Me; org: string }) {
  const network = useQuery(networkQuery);
  return (
    <header className="top">
      <Link to="/o/$org" params={{ org }} className="brand">
        <Mark /> <span className="brand-word">Muster</span>
        <span className="visually-hidden"> start page</span>
      </Link>
      <OrgSwitcher me={me} org={org} />
      {network.data !== undefined && network.data.name !== "mainnet" && <span className="tag">{network.data.name} network</span>}
      <span className="top-gap" />
      <LinkState />
      <AccountMenu me={me} />
    </header>
  );
}

function OrgSwitcher({ me, org }: { me: Me; org: string }) {
  const navigate = useNavigate();
  const id = useId();
  const [only] = me.organisations;
  if (me.organisations.length === 1 && only?.org_id === org) return <span className="org-name">{only.name}</span>;
  return (
    <>
      <label htmlFor={id} className="visually-hidden">
        Organisation
      </label>
      <select id={id} className="input org-switcher" value={org} onChange={(event) => void navigate({ to: "/o/$org", params: { org: event.target.value } })}>
        {!me.organisations.some((one) => one.org_id === org) && <option value={org}>Choose</option>}
        {me.organisations.map((one) => (
          <option key={one.org_id} value={one.org_id}>
            {one.name}
          </option>
        ))}
      </select>
    </>
  );
}

const THEMES: readonly { id: Theme; word: string }[] = [
  { id: "system", word: "System" },
  { id: "light", word: "Light" },
  { id: "dark", word: "Dark" },
];

function AccountMenu({ me }: { me: Me }) {
  const id = useId();
  const [theme, setTheme] = useState<Theme>(currentTheme);
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [error, setError] = useState<unknown>(null);
  const leave = async () => {
    try {
      await signOut();
    } catch (cause) {
      setError(cause);
      return;
    }
    queries.clear();
    queries.setQueryData(meQuery.queryKey, null);
    await navigate({ to: "/" });
  };
  return (
    <>
      <button type="button" className="button account-button" data-look="quiet" popovertarget={id}>
        <span className="mono">
          {me.wallet_address.slice(0, 4)}…{me.wallet_address.slice(-4)}
        </span>
        {icons.down}
        <span className="visually-hidden">Account menu</span>
      </button>
      <div id={id} popover="auto" className="menu">
        <div className="stack">
          <div>
            <p className="strong">{me.name}</p>
            <p className="copyable">
              <span className="mono wallet-address">{me.wallet_address}</span>
              <CopyIcon text={me.wallet_address} what="Wallet address" />
            </p>
          </div>
          <fieldset className="stack" data-gap="tiny">
            <legend className="legend">Theme</legend>
            <div className="chips">
              {THEMES.map((one) => (
                <label key={one.id} className="chip">
                  <input
                    type="radio"
                    name={`${id}-theme`}
                    checked={theme === one.id}
                    onChange={() => {
                      chooseTheme(one.id);
                      setTheme(one.id);
                    }}
                  />
                  {one.word}
                </label>
              ))}
            </div>
          </fieldset>
          {error !== null && <Failure error={error} />}
          <Button onClick={() => void leave()}>Sign out</Button>
        </div>
      </div>
    </>
  );
}

function Sections({ membership }: { membership: Membership }) {
  return (
    <nav className="sections" aria-label="Sections">
      <ul>
        {sectionsOf(membership).map((section) => (
          <li key={section.to}>
            <Link to={section.to} params={{ org: membership.org_id }} activeProps={{ "aria-current": "page" }} activeOptions={{ includeSearch: false }}>
              {section.word}
            </Link>
          </li>
        ))}
      </ul>
    </nav>
  );
}
