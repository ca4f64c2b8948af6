import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { Loaded } from "../design/Loaded";
import { Skeleton } from "../design/parts";

/** What the pages of a run and of a batch have around them. */
export function Frame<T>({ org, query, children }: { org: string; query: Parameters<typeof Loaded<T>>[0]["query"]; children: (data: T) => ReactNode }) {
  return (
    <div className="page">
      <Loaded
        query={query}
        skeleton={
          <div className="stack">
            <Skeleton height={40} width={320} />
            <Skeleton height={90} />
            <Skeleton height={260} />
          </div>
        }
      >
        {children}
      </Loaded>
      <p>
        <Link to="/o/$org/finance/payouts" params={{ org }} className="row-link">
          All payouts
        </Link>
      </p>
    </div>
  );
}
