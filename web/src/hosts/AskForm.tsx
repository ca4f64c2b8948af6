import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Host } from "../api/types";
import { ActionError } from "../design/Loaded";
import { Button, Field, MoneyText } from "../design/parts";
import { isDecimalAmount, plainText } from "../money/money";
import { networkQuery } from "../session/session";
import type { AskBody } from "./queries";

/** Saving replaces the whole ask: what this form does not show goes along. */
function kept(host: Host): Partial<AskBody> {
  if (host.ask === undefined) return {};
  return { rules: host.ask.rules, ...(host.ask.floor === undefined ? {} : { floor: plainText(host.ask.floor) }) };
}

/** The ask where it stands; a click turns it into a form. New prices count for new bookings only. */
export function AskForm({ org, host }: { org: string; host: Host }) {
  const [editing, setEditing] = useState(false);
  if (!editing) {
    return (
      <span className="line" data-gap="small" data-nowrap>
        {host.ask === undefined ? <span className="muted">no price</span> : <MoneyText of={host.ask.price_per_gpu_hour} />}
        {host.ask?.active === false && <span className="tag">paused</span>}
        <Button size="small" onClick={() => setEditing(true)}>
          {host.ask === undefined ? "Set price" : "Change"}
          <span className="visually-hidden"> of {host.name}</span>
        </Button>
      </span>
    );
  }
  return <Editing org={org} host={host} onDone={() => setEditing(false)} />;
}

function Editing({ org, host, onDone }: { org: string; host: Host; onDone: () => void }) {
  const network = useQuery(networkQuery);
  const decimals = network.data?.decimals ?? 6;
  const [price, setPrice] = useState(host.ask === undefined ? "" : plainText(host.ask.price_per_gpu_hour));
  const [active, setActive] = useState(host.ask?.active ?? true);
  const save = useAction({
    run: (body: AskBody, header) => unwrap(client.PUT("/v1/hosts/{id}/ask", { params: { path: { id: host.id }, query: { org }, header }, body })),
    invalidates: [["hosts", org], ["host", org, host.id]],
    done: "Price saved",
    onDone,
  });
  const valid = isDecimalAmount(price, decimals);
  return (
    <form
      className="ask stack"
      data-gap="small"
      onSubmit={(event) => {
        event.preventDefault();
        if (valid) save.mutate({ price_per_gpu_hour: price, active, ...kept(host) });
      }}
    >
      <Field label={`${network.data?.symbol ?? "Tokens"} per GPU-hour`} error={price !== "" && !valid ? `A positive amount with at most ${decimals} decimals` : undefined}>
        {/* The form opens on a click that asks for exactly this field. */}
        {/* eslint-disable-next-line jsx-a11y/no-autofocus */}
        {(props) => <input {...props} className="input input-number" inputMode="decimal" autoFocus value={price} onChange={(event) => setPrice(event.target.value.trim())} onKeyDown={(event) => event.key === "Escape" && onDone()} />}
      </Field>
      <label className="line check">
        <input type="checkbox" checked={active} onChange={(event) => setActive(event.target.checked)} /> Takes new bookings
      </label>
      <ActionError error={save.error} />
      <div className="line" data-gap="small">
        <Button type="submit" size="small" look="primary" busy={save.isPending} disabled={!valid}>
          Save
        </Button>
        <Button size="small" onClick={onDone}>
          Cancel
        </Button>
      </div>
    </form>
  );
}
