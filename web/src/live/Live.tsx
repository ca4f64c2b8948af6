// Connects the live stream to the page: cached answers that an event makes out of date are read again, at most once a batch.
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState, type ReactNode } from "react";
import { Toned } from "../design/parts";
import { meQuery } from "../session/session";
import { formatClock } from "../time/time";
import { LiveContext, useLink } from "./link";
import { INITIAL, type Link } from "./state";
import { LiveStream } from "./stream";

/** Signals within this time are answered by one round of reads. */
const BATCH_MS = 50;

export function Live({ org, children }: { org: string; children: ReactNode }) {
  const queries = useQueryClient();
  const [link, setLink] = useState<Link>(INITIAL.link);
  useEffect(() => {
    const changed = new Set<string>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      timer = undefined;
      void queries.invalidateQueries({ queryKey: ["clusters", org] });
      void queries.invalidateQueries({ queryKey: ["wallet", org] });
      for (const id of changed) void queries.invalidateQueries({ queryKey: ["cluster", org, id] });
      changed.clear();
    };
    const stream = new LiveStream(org, {
      changed: () => setLink(stream.state.link),
      news: ({ id }) => {
        changed.add(id);
        timer ??= setTimeout(flush, BATCH_MS);
      },
      resync: () => {
        void queries.invalidateQueries({ queryKey: ["clusters", org] });
        void queries.invalidateQueries({ queryKey: ["cluster", org] });
      },
      signedOut: () => queries.setQueryData(meQuery.queryKey, null),
    });
    stream.start();
    return () => {
      clearTimeout(timer);
      stream.stop();
    };
  }, [org, queries]);
  return <LiveContext.Provider value={link}>{children}</LiveContext.Provider>;
}

/** Live, Reconnecting, or Stale since when. */
export function LinkState() {
  const link = useLink();
  return (
    <span role="status">
      {link.kind === "live" && <Toned tone="ok">Live</Toned>}
      {link.kind === "connecting" && <Toned tone="unknown">Connecting</Toned>}
      {link.kind === "reconnecting" && <Toned tone="warn">Reconnecting</Toned>}
      {link.kind === "stale" && <Toned tone="bad">Stale since {formatClock(new Date(link.since).toISOString())}</Toned>}
    </span>
  );
}
