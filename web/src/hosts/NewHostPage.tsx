import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { JoinToken, JoinTokenCreated } from "../api/types";
import { announce } from "../design/announce";
import { GpuTiles } from "../design/GpuTiles";
import { ActionError, Loaded, LoadedList, SafePanel } from "../design/Loaded";
import { Button, CopyButton, Empty, Field, State, TableScroll, Time, Toned } from "../design/parts";
import { formatDuration } from "../time/time";
import { useNow } from "../time/useNow";
import { gpuFills, gpuWords, hostQuery, joinTokensQuery } from "./queries";
import "./hosts.css";

const REGION = /^[a-z0-9-]{1,40}$/;

export function NewHostPage() {
  const { org } = useParams({ from: "/o/$org/hosts/new" });
  const [created, setCreated] = useState<JoinTokenCreated | null>(null);
  const tokens = useInfiniteQuery(joinTokensQuery(org));
  const current = tokens.data?.find((token) => token.id === created?.id);
  return (
    <div className="page">
      <div className="page-head">
        <h1>Add a host</h1>
      </div>
      {created === null ? <Ask org={org} onCreated={setCreated} /> : <Command org={org} created={created} state={current ?? created} onAgain={() => setCreated(null)} />}
      <SafePanel title="Join tokens" flush>
        <LoadedList query={tokens} rows={2} empty={<Empty>No token has been made. Each is good for one host and fifteen minutes.</Empty>}>
          {(items) => <Tokens org={org} tokens={items} />}
        </LoadedList>
      </SafePanel>
    </div>
  );
}

function Ask({ org, onCreated }: { org: string; onCreated: (token: JoinTokenCreated) => void }) {
  const [region, setRegion] = useState("");
  const [site, setSite] = useState("");
  const create = useAction({
    run: (body: { kind: "gpu"; region: string; site?: string }, header) => unwrap(client.POST("/v1/join-tokens", { params: { query: { org }, header }, body })),
    invalidates: [["join-tokens", org]],
    done: "Join token created",
    onDone: onCreated,
  });
  const bad = region !== "" && !REGION.test(region);
  return (
    <SafePanel title="Where is it?">
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (REGION.test(region)) create.mutate({ kind: "gpu", region, ...(site.trim() === "" ? {} : { site: site.trim() }) });
        }}
      >
        <div className="two">
          <Field label="Region" hint="For example eu-west" error={bad ? "Small letters, digits and dashes" : undefined}>
            {(props) => <input {...props} className="input" required maxLength={40} value={region} onChange={(event) => setRegion(event.target.value.trim())} />}
          </Field>
          <Field label="Site, if several hosts share a network" hint="Hosts of one site are booked together first">
            {(props) => <input {...props} className="input" maxLength={80} value={site} onChange={(event) => setSite(event.target.value)} />}
          </Field>
        </div>
        <ActionError error={create.error} />
        <div>
          <Button type="submit" look="primary" busy={create.isPending} disabled={!REGION.test(region)}>
            Get the command
          </Button>
        </div>
      </form>
    </SafePanel>
  );
}

const COUNTDOWN_TICK_MS = 1_000;

function Command({ org, created, state, onAgain }: { org: string; created: JoinTokenCreated; state: JoinToken; onAgain: () => void }) {
  const now = useNow(COUNTDOWN_TICK_MS, state.state === "open");
  const left = Date.parse(created.expires_at) - now;
  const expired = state.state === "expired" || (state.state === "open" && left <= 0);
  return (
    <SafePanel title="Run this on the host" aside={expired ? <Toned tone="unknown">Expired</Toned> : <State machine="token" state={state.state} />}>
      <div className="stack">
        {state.state === "open" && !expired && (
          <>
            <div className="snippet">
              <div className="snippet-actions">
                <CopyButton text={created.command} what="Command" />
              </div>
              <pre className="command">{created.command}</pre>
            </div>
            <p className="muted">
              It works once, on one host, for another {formatDuration(left)}. The host makes its own key; nothing here can be used to act as it. This page shows it as soon as it joins.
            </p>
          </>
        )}
        {expired && <p>The token was not used in time. Nothing has joined.</p>}
        {state.state === "revoked" && <p>The token was revoked.</p>}
        {state.host_id !== undefined && <Joined org={org} id={state.host_id} />}
        {(expired || state.state !== "open") && (
          <div>
            <Button onClick={onAgain}>Add another host</Button>
          </div>
        )}
      </div>
    </SafePanel>
  );
}

function Joined({ org, id }: { org: string; id: string }) {
  const query = useQuery(hostQuery(org, id));
  useEffect(() => announce("The host has joined"), [id]);
  return (
    <Loaded query={query}>
      {(host) => (
        <div className="stack" data-gap="small">
          <div className="line">
            <Link to="/o/$org/hosts/$id" params={{ org, id }} className="row-link strong">
              {host.name}
            </Link>
            <State machine="host" state={host.state} />
            <GpuTiles fills={gpuFills(host)} />
            <span className="muted">{gpuWords(host)}</span>
          </div>
          <p className="muted">{host.ask === undefined ? "Set its price next: without one it takes no bookings." : "It takes bookings at its price."}</p>
        </div>
      )}
    </Loaded>
  );
}

function Tokens({ org, tokens }: { org: string; tokens: JoinToken[] }) {
  const revoke = useAction({
    run: (id: string, header) => unwrap(client.DELETE("/v1/join-tokens/{id}", { params: { path: { id }, query: { org }, header } })),
    invalidates: [["join-tokens", org]],
    done: "Token revoked",
  });
  return (
    <>
      <TableScroll label="Join tokens">
        <table>
          <thead>
            <tr>
              <th scope="col">Made</th>
              <th scope="col">State</th>
              <th scope="col">Region</th>
              <th scope="col">Expires</th>
              <th scope="col">Host</th>
              <th scope="col" className="tight">
                <span className="visually-hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {tokens.map((token) => (
              <tr key={token.id}>
                <td>
                  <Time at={token.created_at} />
                </td>
                <td>
                  <State machine="token" state={token.state} />
                </td>
                <td className="nowrap">{token.region}</td>
                <td>
                  <Time at={token.expires_at} clock />
                </td>
                <td>
                  {token.host_id !== undefined && (
                    <Link to="/o/$org/hosts/$id" params={{ org, id: token.host_id }} className="row-link">
                      Show host
                    </Link>
                  )}
                </td>
                <td className="tight">
                  {token.state === "open" && (
                    <Button size="small" look="danger" busy={revoke.isPending && revoke.variables === token.id} onClick={() => revoke.mutate(token.id)}>
                      Revoke
                    </Button>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
      <ActionError error={revoke.error} />
    </>
  );
}
