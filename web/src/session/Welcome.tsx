import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import { ActionError } from "../design/Loaded";
import { Button, Field } from "../design/parts";
import { Mark } from "../shell/Mark";
import { meQuery } from "./session";

/** For a wallet that belongs to no organisation yet: found one, or be added to somebody's. */
export function WelcomePage() {
  const navigate = useNavigate();
  const [name, setName] = useState("");
  const found = useAction({
    run: (input: { name: string }, header) => unwrap(client.POST("/v1/organisations", { params: { header }, body: input })),
    invalidates: [meQuery.queryKey],
    done: "Organisation created",
    onDone: (membership) => void navigate({ to: "/o/$org", params: { org: membership.org_id }, reloadDocument: true }),
  });
  return (
    <main className="sign-in">
      <div className="stack">
        <p className="line">
          <Mark /> <span className="strong">Muster</span>
        </p>
        <h1>Create an organisation</h1>
        <p className="muted">Hosts, clusters and balances belong to an organisation. To join an existing one, ask its admin to add your wallet address.</p>
      </div>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          found.mutate({ name: name.trim() });
        }}
      >
        <Field label="Name">{(props) => <input {...props} className="input" value={name} maxLength={80} required autoComplete="organization" onChange={(event) => setName(event.target.value)} />}</Field>
        <ActionError error={found.error} />
        <Button type="submit" look="primary" busy={found.isPending} disabled={name.trim() === ""}>
          Create
        </Button>
      </form>
    </main>
  );
}
