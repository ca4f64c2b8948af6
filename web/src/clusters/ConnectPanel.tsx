import { useMutation } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { client, unwrap } from "../api/client";
import type { Cluster, RayToken } from "../api/types";
import { announce } from "../design/announce";
import { ActionError, SafePanel } from "../design/Loaded";
import { Button, CopyButton, Tabs, Time } from "../design/parts";
import { icons } from "../design/icons";
import { serverNow } from "../time/clock";
import { useNow } from "../time/useNow";
import { jobSnippet, pythonSnippet, type Snippet } from "./connect";
import type { ConnectTab } from "./search";

const TABS: readonly { id: ConnectTab; word: string }[] = [
  { id: "job", word: "Job" },
  { id: "python", word: "Python" },
  { id: "dashboard", word: "Dashboard" },
];

export function ConnectPanel({ org, cluster }: { org: string; cluster: Cluster }) {
  const { connect = "job" } = useSearch({ from: "/o/$org/clusters/$id" });
  const navigate = useNavigate({ from: "/o/$org/clusters/$id" });
  const token = useMutation({
    mutationFn: () => unwrap(client.POST("/v1/clusters/{id}/ray-token", { params: { path: { id: cluster.id }, query: { org } } })),
    onSuccess: () => announce("Token created"),
  });
  return (
    <SafePanel title="Connect">
      <Tabs label="Ways to connect" tabs={TABS} value={connect} onChange={(tab) => void navigate({ search: (previous) => ({ ...previous, connect: tab }), replace: true, resetScroll: false })}>
        {connect === "dashboard" ? (
          <Dashboard org={org} cluster={cluster} />
        ) : (
          <div className="stack" data-gap="small">
            {token.data === undefined ? (
              <>
                <p className="muted">{connect === "job" ? "Stock Ray reaches this cluster by three environment variables. They carry a token of your own that expires." : "Ray’s own client for Python, with a token of your own that expires."}</p>
                <div>
                  <Button onClick={() => token.mutate()} busy={token.isPending}>
                    Create a token
                  </Button>
                </div>
              </>
            ) : (
              <WithToken token={token.data} snippet={connect === "job" ? jobSnippet(token.data) : pythonSnippet(token.data)} onRenew={() => token.mutate()} busy={token.isPending} />
            )}
            <ActionError error={token.error} />
          </div>
        )}
      </Tabs>
    </SafePanel>
  );
}

const EXPIRY_TICK_MS = 10_000;

function WithToken({ token, snippet, onRenew, busy }: { token: RayToken; snippet: Snippet; onRenew: () => void; busy: boolean }) {
  const expired = Date.parse(token.expires_at) <= useNow(EXPIRY_TICK_MS);
  return (
    <>
      <div className="snippet">
        <div className="snippet-actions">
          <CopyButton text={snippet.copied} what="Snippet with the token" />
        </div>
        <pre>{snippet.shown}</pre>
      </div>
      <div className="line muted">
        {expired ? "The token has expired." : <span>The token expires <Time at={token.expires_at} />.</span>}
        <Button size="small" onClick={onRenew} busy={busy}>
          New token
        </Button>
      </div>
    </>
  );
}

function Dashboard({ org, cluster }: { org: string; cluster: Cluster }) {
  const ticket = useMutation({
    mutationFn: () => unwrap(client.POST("/v1/clusters/{id}/dashboard-ticket", { params: { path: { id: cluster.id }, query: { org } } })),
    onSuccess: ({ url, expires_at }) => {
      // Code of the cluster's users runs there: it must not get a handle on this page.
      if (Date.parse(expires_at) > serverNow()) window.open(url, "_blank", "noopener,noreferrer");
      announce("Ray dashboard opened in a new tab");
    },
  });
  return (
    <div className="stack" data-gap="small">
      <p className="muted">Ray’s own dashboard, on an address of this cluster alone, in a new tab.</p>
      <div>
        <Button onClick={() => ticket.mutate()} busy={ticket.isPending}>
          Open the dashboard {icons.external}
        </Button>
      </div>
      <ActionError error={ticket.error} />
    </div>
  );
}
