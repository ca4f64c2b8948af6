import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useParams } from "@tanstack/react-router";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { paged } from "../api/paged";
import { useAction } from "../api/useAction";
import type { Key, KeyCreated, Membership } from "../api/types";
import { ActionError, LoadedList, SafePanel } from "../design/Loaded";
import { Button, CopyButton, Dialog, Empty, Field, Notice, TableScroll, Time, Toned } from "../design/parts";
import { hasRole, meQuery } from "../session/session";
import { serverNow } from "../time/clock";

const keysQuery = (org: string) => paged(["keys", org], (page, signal) => unwrap(client.GET("/v1/keys", { params: { query: { org, ...page } }, signal })));

export function KeysPage() {
  const { org } = useParams({ from: "/o/$org/keys" });
  const query = useInfiniteQuery(keysQuery(org));
  const [creating, setCreating] = useState(false);
  const [created, setCreated] = useState<KeyCreated | null>(null);
  return (
    <div className="page">
      <div className="page-head">
        <h1>API keys</h1>
        <Button look="primary" onClick={() => setCreating(true)}>
          New key
        </Button>
      </div>
      <p className="muted">A key signs in programs and the muster command line for you, in this organisation, with the rights you give it. It lasts at most 90 days.</p>
      {created !== null && <Secret created={created} onDone={() => setCreated(null)} />}
      <SafePanel title="Your keys" flush>
        <LoadedList query={query} empty={<Empty>No keys yet. “New key” makes one.</Empty>}>
          {(keys) => <Keys org={org} keys={keys} />}
        </LoadedList>
      </SafePanel>
      <Dialog open={creating} title="New key" onClose={() => setCreating(false)}>
        <Create
          org={org}
          onCreated={(key) => {
            setCreated(key);
            setCreating(false);
          }}
          onCancel={() => setCreating(false)}
        />
      </Dialog>
    </div>
  );
}

function Secret({ created, onDone }: { created: KeyCreated; onDone: () => void }) {
  return (
    <Notice tone="ok">
      <Toned tone="ok">Key “{created.name}” created</Toned>
      <p>Copy it now: it is not shown again.</p>
      <div className="snippet">
        <div className="snippet-actions">
          <CopyButton text={created.secret} what="API key" />
        </div>
        <pre>{created.secret}</pre>
      </div>
      <div>
        <Button size="small" onClick={onDone}>
          I have copied it
        </Button>
      </div>
    </Notice>
  );
}

const SCOPES: readonly { id: string; word: string; may: (membership: Membership) => boolean }[] = [
  { id: "read", word: "Read", may: () => true },
  { id: "book", word: "Book and release clusters", may: (membership) => hasRole(membership, "engineer") },
  { id: "jobs", word: "Run and stop jobs", may: (membership) => hasRole(membership, "engineer") },
  { id: "wallet", word: "See the wallet", may: (membership) => hasRole(membership, "engineer", "finance") },
  { id: "hosts", word: "Manage hosts", may: (membership) => hasRole(membership, "owner") },
  { id: "finance", word: "Pay out and reconcile", may: (membership) => hasRole(membership, "finance") && membership.platform },
];
const LIFETIMES = [7, 30, 90] as const;

function Create({ org, onCreated, onCancel }: { org: string; onCreated: (key: KeyCreated) => void; onCancel: () => void }) {
  const me = useQuery(meQuery);
  const membership = me.data?.organisations.find((one) => one.org_id === org);
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>(["read"]);
  const [days, setDays] = useState<number>(30);
  const create = useAction({
    run: (body: { name: string; scopes: string[]; days: number }, header) => unwrap(client.POST("/v1/keys", { params: { query: { org }, header }, body })),
    invalidates: [["keys", org]],
    done: "Key created",
    onDone: onCreated,
  });
  if (membership === undefined) return null;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate({ name: name.trim(), scopes, days });
      }}
    >
      <Field label="Name" hint="Where it will be used">
        {(props) => <input {...props} className="input" value={name} required maxLength={80} onChange={(event) => setName(event.target.value)} />}
      </Field>
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">It may</legend>
        <div className="chips">
          {SCOPES.filter((scope) => scope.may(membership)).map((scope) => (
            <label key={scope.id} className="chip">
              <input type="checkbox" checked={scopes.includes(scope.id)} onChange={(event) => setScopes(event.target.checked ? [...scopes, scope.id] : scopes.filter((one) => one !== scope.id))} />
              {scope.word}
            </label>
          ))}
        </div>
      </fieldset>
      <fieldset className="stack" data-gap="tiny">
        <legend className="legend">It lasts</legend>
        <div className="chips">
          {LIFETIMES.map((lifetime) => (
            <label key={lifetime} className="chip">
              <input type="radio" name="days" checked={days === lifetime} onChange={() => setDays(lifetime)} />
              {lifetime} days
            </label>
          ))}
        </div>
      </fieldset>
      <ActionError error={create.error} />
      <div className="dialog-actions">
        <Button onClick={onCancel}>Cancel</Button>
        <Button type="submit" look="primary" busy={create.isPending} disabled={name.trim() === "" || scopes.length === 0}>
          Create key
        </Button>
      </div>
    </form>
  );
}

function Keys({ org, keys }: { org: string; keys: Key[] }) {
  const [revoking, setRevoking] = useState<Key | null>(null);
  const revoke = useAction({
    run: (id: string, header) => unwrap(client.DELETE("/v1/keys/{id}", { params: { path: { id }, query: { org }, header } })),
    invalidates: [["keys", org]],
    done: "Key revoked",
    onDone: () => setRevoking(null),
  });
  return (
    <>
      <TableScroll label="API keys">
        <table>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Begins with</th>
              <th scope="col">May</th>
              <th scope="col">Last used</th>
              <th scope="col">Expires</th>
              <th scope="col" className="tight">
                <span className="visually-hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {keys.map((key) => (
              <tr key={key.id}>
                <th scope="row">{key.name}</th>
                <td className="mono">{key.hint}</td>
                <td>{key.scopes.join(", ")}</td>
                <td>{key.last_used_at === undefined ? <span className="muted">never</span> : <Time at={key.last_used_at} />}</td>
                <td>{Date.parse(key.expires_at) <= serverNow() ? <Toned tone="unknown">Expired</Toned> : <Time at={key.expires_at} />}</td>
                <td className="tight">
                  <Button size="small" look="danger" onClick={() => setRevoking(key)}>
                    Revoke<span className="visually-hidden"> {key.name}</span>
                  </Button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
      <Dialog open={revoking !== null} title={`Revoke “${revoking?.name ?? ""}”?`} onClose={() => setRevoking(null)}>
        <p>Whatever uses it is refused from now on. This cannot be undone.</p>
        <ActionError error={revoke.error} />
        <div className="dialog-actions">
          <Button onClick={() => setRevoking(null)}>Keep it</Button>
          <Button
            look="danger"
            busy={revoke.isPending}
            onClick={() => {
              if (revoking !== null) revoke.mutate(revoking.id);
            }}
          >
            Revoke key
          </Button>
        </div>
      </Dialog>
    </>
  );
}
