import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useId } from "react";
import { Tabs } from "../design/parts";
import { hasRole, meQuery } from "../session/session";
import { serverNow } from "../time/clock";
import { CustomerStatement } from "./CustomerStatement";
import { choices, monthOf, monthWords, shifted, type Side } from "./month";
import { OwnerStatement } from "./OwnerStatement";
import { fileAddress } from "./queries";
import "./statements.css";

/** What was charged and earned in a month, line by line, and the files of it. */
export function StatementsPage() {
  const { org } = useParams({ from: "/o/$org/statements" });
  const search = useSearch({ from: "/o/$org/statements" });
  const navigate = useNavigate();
  const me = useQuery(meQuery);
  const membership = me.data?.organisations.find((one) => one.org_id === org);
  const newest = monthOf(serverNow());
  const month = search.month ?? newest;
  const sides = membership === undefined ? [] : sidesOf((...roles) => roles.some((role) => hasRole(membership, role)));
  const side = sides.find((one) => one.id === search.as) ?? sides[0];
  const go = (change: { month?: string; as?: Side }) => void navigate({ to: "/o/$org/statements", params: { org }, search: { ...search, ...change }, replace: true });
  if (side === undefined) return null;
  const content = side.id === "customer" ? <CustomerStatement org={org} month={month} /> : <OwnerStatement org={org} month={month} owner={membership !== undefined && hasRole(membership, "owner")} />;
  return (
    <div className="page">
      <div className="page-head">
        <h1>Statements</h1>
        <Months month={month} newest={newest} onChange={(next) => go({ month: next })} />
      </div>
      <div className="line" data-gap="small">
        <Download href={fileAddress(side.id, org, month)}>CSV</Download>
        {side.id === "customer" && <Download href={fileAddress("focus", org, month)}>costs for FinOps (FOCUS)</Download>}
        <span className="muted">Whole days, UTC. Opening balance and lines come to the closing balance, to the last unit.</span>
      </div>
      {sides.length === 1 ? (
        content
      ) : (
        <Tabs label="Whose statement" tabs={sides} value={side.id} onChange={(as) => go({ as })}>
          <div className="stack">{content}</div>
        </Tabs>
      )}
    </div>
  );
}

function sidesOf(has: (...roles: ("engineer" | "owner" | "finance")[]) => boolean): { id: Side; word: string }[] {
  const sides: ({ id: Side; word: string } | false)[] = [
    has("engineer", "finance") && { id: "customer", word: "Charged" },
    has("owner", "finance") && { id: "owner", word: "Earned" },
  ];
  return sides.filter((side) => side !== false);
}

function Months({ month, newest, onChange }: { month: string; newest: string; onChange: (month: string) => void }) {
  const id = useId();
  return (
    <div className="line months" data-gap="small" data-nowrap>
      <button type="button" className="button" onClick={() => onChange(shifted(month, -1))}>
        Earlier
      </button>
      <label htmlFor={id} className="visually-hidden">
        Month
      </label>
      <select id={id} className="input" value={month} onChange={(event) => onChange(event.target.value)}>
        {choices(newest, month).map((one) => (
          <option key={one} value={one}>
            {monthWords(one)}
          </option>
        ))}
      </select>
      <button type="button" className="button" disabled={month >= newest} onClick={() => onChange(shifted(month, 1))}>
        Later
      </button>
    </div>
  );
}

function Download({ href, children }: { href: string; children: string }) {
  return (
    <a className="button" data-size="small" href={href} download>
      Download {children}
    </a>
  );
}
