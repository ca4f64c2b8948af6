// The states that everything loaded has: loading, failed, loaded, and loaded but out of date.
import { Component, type ReactNode } from "react";
import { asApiError } from "../api/problem";
import { Button, Notice, Panel, SkeletonRows } from "./parts";
import { icons } from "./icons";

interface Loadable<T> {
  data: T | undefined;
  error: Error | null;
  isFetching: boolean;
  refetch: () => unknown;
}

export function Loaded<T>({ query, skeleton, children }: { query: Loadable<T>; skeleton?: ReactNode; children: (data: T) => ReactNode }) {
  if (query.data !== undefined) {
    return (
      <>
        {query.error !== null && <OutOfDate query={query} />}
        {children(query.data)}
      </>
    );
  }
  if (query.error !== null) return <Failure error={query.error} onRetry={() => void query.refetch()} busy={query.isFetching} />;
  return skeleton ?? <SkeletonRows rows={4} />;
}

function OutOfDate({ query }: { query: Loadable<unknown> }) {
  return (
    <div className="line panel-body" role="status">
      <span className="state" data-tone="warn">
        {icons.warn} This may be out of date
      </span>
      <Button size="small" onClick={() => void query.refetch()} busy={query.isFetching}>
        Refresh
      </Button>
    </div>
  );
}

/** What went wrong, the request id to quote, and another try. */
export function Failure({ error, onRetry, busy = false }: { error: unknown; onRetry?: (() => void) | undefined; busy?: boolean }) {
  const problem = asApiError(error);
  return (
    <div className="notice" data-tone="bad" role="alert">
      <span className="state" data-tone="bad">
        {icons.bad} {problem.code === "not_found" ? "Not found" : problem.code === "forbidden" ? "Not allowed" : "That did not work"}
      </span>
      <p>{problem.message}</p>
      {problem.fields.length > 0 && (
        <ul>
          {problem.fields.map((field) => (
            <li key={field.path}>{field.message}</li>
          ))}
        </ul>
      )}
      <div className="line">
        {onRetry !== undefined && (
          <Button size="small" onClick={onRetry} busy={busy}>
            Retry
          </Button>
        )}
        {problem.requestId !== "" && (
          <span className="muted">
            Request <span className="mono">{problem.requestId}</span>
          </span>
        )}
      </div>
    </div>
  );
}

/** Keeps a defect in one panel from taking the page with it. */
export class Boundary extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    return <Failure error={this.state.error} onRetry={() => this.setState({ error: null })} />;
  }
}

interface PagedQuery<T> extends Loadable<T[]> {
  hasNextPage: boolean;
  isFetchingNextPage: boolean;
  fetchNextPage: () => unknown;
}

/** A list with its five states and "Show more". */
export function LoadedList<T>({ query, rows, empty, children }: { query: PagedQuery<T>; rows?: number; empty: ReactNode; children: (items: T[]) => ReactNode }) {
  return (
    <Loaded
      query={query}
      skeleton={
        <div className="panel-body">
          <SkeletonRows rows={rows ?? 4} />
        </div>
      }
    >
      {(items) => (
        <>
          {items.length === 0 ? empty : children(items)}
          {query.hasNextPage && (
            <div className="panel-body">
              <Button size="small" onClick={() => void query.fetchNextPage()} busy={query.isFetchingNextPage}>
                Show more
              </Button>
            </div>
          )}
        </>
      )}
    </Loaded>
  );
}

/** A panel whose contents fail alone. */
export function SafePanel(props: Parameters<typeof Panel>[0]) {
  return (
    <Panel {...props}>
      <Boundary>{props.children}</Boundary>
    </Panel>
  );
}

export function ActionError({ error }: { error: unknown }) {
  if (error === null || error === undefined) return null;
  const problem = asApiError(error);
  return (
    <div role="alert">
      <Notice tone="bad">
        <p>{problem.message}</p>
        {problem.fields.map((field) => (
          <p key={field.path}>{field.message}</p>
        ))}
        {problem.requestId !== "" && (
          <p className="muted">
            Request <span className="mono">{problem.requestId}</span>
          </p>
        )}
      </Notice>
    </div>
  );
}
