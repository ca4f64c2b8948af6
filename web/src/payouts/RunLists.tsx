// What a run has made: batches and payees, page by page. A run may have 100,000 payees, so it is the server that filters.
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import type { PayoutRun, RunPayee } from "../api/types";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Button, Empty, Field, MoneyText, shortened, ShortId, State, TableScroll } from "../design/parts";
import { lookOf } from "../design/state";
import { TransactionLink } from "../design/TransactionLink";
import { Batches } from "./Batches";
import { isMoving, runBatchesQuery, runPayeesQuery, type BatchState } from "./queries";
import { count, PURPOSE_WORDS } from "./words";

const MOST_CHARS = 100;

interface Choice {
  run: PayoutRun;
  value: BatchState | undefined;
  onChange: (state: BatchState | undefined) => void;
}

/** The states that a run's batches are in, to choose from. */
function StateSelect({ run, value, onChange, ...props }: Choice & { id?: string; "aria-label"?: string }) {
  const states = (run.progress ?? []).map((step) => step.state);
  if (value !== undefined && !states.includes(value)) states.push(value);
  return (
    <select {...props} className="input" value={value ?? ""} onChange={(event) => onChange(event.target.value === "" ? undefined : (event.target.value as BatchState))}>
      <option value="">Any state</option>
      {states.map((state) => (
        <option key={state} value={state}>
          {lookOf("batch", state).word}
        </option>
      ))}
    </select>
  );
}

export function RunBatches({ org, run }: { org: string; run: PayoutRun }) {
  const [state, setState] = useState<BatchState>();
  const batches = useInfiniteQuery(runBatchesQuery(org, run.id, state, isMoving(run)));
  return (
    <SafePanel
      title={run.batch_count === 0 ? "Batches" : count(run.batch_count, "batch", "batches")}
      aside={
        <span>
          <StateSelect run={run} aria-label="Batches in which state" value={state} onChange={setState} />
        </span>
      }
      flush
    >
      <LoadedList query={batches} empty={<Empty>{state !== undefined ? "No batch is in this state now." : run.state === "drafting" ? "Nothing is drafted yet." : "Nobody could be paid."}</Empty>}>
        {(items) => <Batches org={org} batches={items} drafted={false} />}
      </LoadedList>
    </SafePanel>
  );
}

export function HeldBack({ org, run }: { org: string; run: PayoutRun }) {
  const payees = useInfiniteQuery(runPayeesQuery(org, run.id, { state: "left_out" }, isMoving(run)));
  return (
    <SafePanel title={`Held back, ${count(run.left_out_count, "payee")}`} aside={<span className="muted">the others are paid all the same</span>} flush>
      <LoadedList query={payees} rows={1} empty={<Empty>Nobody is held back.</Empty>}>
        {(items) => (
          <TableScroll label="Held back">
            <table>
              <thead>
                <tr>
                  <th scope="col">Payee</th>
                  <th scope="col" className="not-narrow">
                    For
                  </th>
                  <th scope="col">Why</th>
                  <th scope="col" className="number">
                    Amount
                  </th>
                </tr>
              </thead>
              <tbody>
                {items.map((payee) => (
                  <tr key={`${payee.org_id} ${payee.purpose}`}>
                    <th scope="row">{payee.name}</th>
                    <td className="not-narrow">{PURPOSE_WORDS[payee.purpose]}</td>
                    <td className="wide">{payee.reason}</td>
                    <td className="number">
                      <MoneyText of={payee.amount} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </LoadedList>
    </SafePanel>
  );
}

/** The payees who are in a batch, the largest amounts first. */
export function RunPayees({ org, run }: { org: string; run: PayoutRun }) {
  const [state, setState] = useState<BatchState>();
  const [text, setText] = useState("");
  const payees = useInfiniteQuery(runPayeesQuery(org, run.id, { state: state ?? "drafted", ...(text === "" ? {} : { q: text }) }, isMoving(run)));
  return (
    <SafePanel title={`Drafted, ${count(run.payee_count, "payee")}`} flush>
      <form
        className="list-filter"
        aria-label="Find payees"
        onSubmit={(event) => {
          event.preventDefault();
          const typed = new FormData(event.currentTarget).get("q");
          setText(typeof typed === "string" ? typed.trim() : "");
        }}
      >
        <Field label="Payee, address or signature">{(props) => <input {...props} className="input" type="search" name="q" maxLength={MOST_CHARS} placeholder="Part of a name, or how the others begin" />}</Field>
        <Field label="State">{({ id }) => <StateSelect id={id} run={run} value={state} onChange={setState} />}</Field>
        <Button type="submit">Find</Button>
      </form>
      <LoadedList query={payees} empty={<Empty>{text === "" && state === undefined ? "Nobody is drafted yet." : "No payee of this run is like that."}</Empty>}>
        {(items) => <Drafted org={org} payees={items} />}
      </LoadedList>
    </SafePanel>
  );
}

function Drafted({ org, payees }: { org: string; payees: RunPayee[] }) {
  return (
    <TableScroll label="Drafted payees">
      <table>
        <thead>
          <tr>
            <th scope="col">Payee</th>
            <th scope="col" className="not-narrow">
              Wallet
            </th>
            <th scope="col" className="not-narrow">
              Batch
            </th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payees.map((payee) => (
            <tr key={`${payee.org_id} ${payee.purpose} ${payee.batch_id ?? ""}`}>
              <th scope="row">
                {payee.name}
                <div className="muted">{PURPOSE_WORDS[payee.purpose]}</div>
              </th>
              <td className="not-narrow">{payee.address !== undefined && <ShortId id={payee.address} what="Wallet address" keep={4} />}</td>
              <td className="not-narrow nowrap">
                {payee.batch_id !== undefined && (
                  <Link to="/o/$org/finance/payouts/$id" params={{ org, id: payee.batch_id }} className="row-link mono">
                    {shortened(payee.batch_id, 4)}
                  </Link>
                )}
              </td>
              <td>
                <State machine="batch" state={payee.state} />
                {payee.signature !== undefined && (
                  <div>
                    <TransactionLink signature={payee.signature} />
                  </div>
                )}
              </td>
              <td className="number">
                <MoneyText of={payee.amount} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
