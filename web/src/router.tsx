// The console's addresses. Pages load lazily; what a page is filtered by or has selected lives in its address, read by one
// validator each, which drops what it does not understand.
import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, createRoute, createRouter, Outlet, redirect, type ErrorComponentProps } from "@tanstack/react-router";
import { bookingSearch } from "./booking/search";
import { booksSearch } from "./books/search";
import { solSearch } from "./sol/search";
import { clusterSearch, clustersSearch } from "./clusters/search";
import { Failure } from "./design/Loaded";
import { SkeletonRows } from "./design/parts";
import { marketSearch } from "./market/search";
import { sectionsOf } from "./session/sections";
import { meQuery } from "./session/session";
import { statementsSearch } from "./statements/month";
import { Shell } from "./shell/Shell";

interface Context {
  queries: QueryClient;
}

/** Who is signed in, as known; asked once a page load. */
function whoIs({ queries }: Context) {
  return queries.query({ ...meQuery, staleTime: "static" });
}

const root = createRootRouteWithContext<Context>()({ component: Outlet });

const home = createRoute({
  getParentRoute: () => root,
  path: "/",
  validateSearch: (search: Record<string, unknown>): { next?: string } => {
    const { next } = search;
    // Only addresses of this console: anything else would make sign-in an open redirect.
    return typeof next === "string" && /^\/o\/[A-Za-z0-9_/?=&%.,-]*$/.test(next) ? { next } : {};
  },
  beforeLoad: async ({ context, search }) => {
    const me = await whoIs(context);
    if (me === null) return;
    if (search.next !== undefined) throw redirect({ href: search.next });
    const [first] = me.organisations;
    if (first !== undefined) throw redirect({ to: "/o/$org", params: { org: first.org_id } });
    throw redirect({ to: "/welcome" });
  },
}).lazy(() => import("./session/route").then((page) => page.signInRoute));

const welcome = createRoute({
  getParentRoute: () => root,
  path: "/welcome",
  beforeLoad: async ({ context }) => {
    if ((await whoIs(context)) === null) throw redirect({ to: "/" });
  },
}).lazy(() => import("./session/route").then((page) => page.welcomeRoute));

const org = createRoute({
  getParentRoute: () => root,
  path: "/o/$org",
  component: Shell,
  beforeLoad: async ({ context, location }) => {
    const me = await whoIs(context);
    if (me === null) throw redirect({ to: "/", search: { next: location.href } });
  },
});

const orgHome = createRoute({
  getParentRoute: () => org,
  path: "/",
  beforeLoad: async ({ context, params }) => {
    const me = await whoIs(context);
    const membership = me?.organisations.find((one) => one.org_id === params.org);
    const section = membership === undefined ? undefined : sectionsOf(membership)[0];
    if (section !== undefined) throw redirect({ to: section.to, params, replace: true });
  },
});

const book = createRoute({ getParentRoute: () => org, path: "new", validateSearch: bookingSearch }).lazy(() => import("./booking/route").then((page) => page.bookRoute));
const market = createRoute({ getParentRoute: () => org, path: "market", validateSearch: marketSearch }).lazy(() => import("./market/route").then((page) => page.marketRoute));
const clusters = createRoute({ getParentRoute: () => org, path: "clusters", validateSearch: clustersSearch }).lazy(() => import("./clusters/route").then((page) => page.clustersRoute));
const cluster = createRoute({ getParentRoute: () => org, path: "clusters/$id", validateSearch: clusterSearch }).lazy(() => import("./clusters/route").then((page) => page.clusterRoute));
const wallet = createRoute({ getParentRoute: () => org, path: "wallet" }).lazy(() => import("./funds/route").then((page) => page.walletRoute));
const keys = createRoute({ getParentRoute: () => org, path: "keys" }).lazy(() => import("./keys/route").then((page) => page.keysRoute));
const hosts = createRoute({ getParentRoute: () => org, path: "hosts" }).lazy(() => import("./hosts/route").then((page) => page.hostsRoute));
const newHost = createRoute({ getParentRoute: () => org, path: "hosts/new" }).lazy(() => import("./hosts/route").then((page) => page.newHostRoute));
const host = createRoute({ getParentRoute: () => org, path: "hosts/$id" }).lazy(() => import("./hosts/route").then((page) => page.hostRoute));
const earnings = createRoute({ getParentRoute: () => org, path: "earnings" }).lazy(() => import("./earnings/route").then((page) => page.earningsRoute));
const statements = createRoute({ getParentRoute: () => org, path: "statements", validateSearch: statementsSearch }).lazy(() => import("./statements/route").then((page) => page.statementsRoute));
const payouts = createRoute({ getParentRoute: () => org, path: "finance/payouts" }).lazy(() => import("./payouts/route").then((page) => page.payoutsRoute));
const batch = createRoute({ getParentRoute: () => org, path: "finance/payouts/$id" }).lazy(() => import("./payouts/route").then((page) => page.batchRoute));
const payoutRun = createRoute({ getParentRoute: () => org, path: "finance/payouts/runs/$run" }).lazy(() => import("./payouts/route").then((page) => page.runRoute));
const reconcile = createRoute({ getParentRoute: () => org, path: "finance/reconcile" }).lazy(() => import("./reconcile/route").then((page) => page.reconcileRoute));
const reconciliation = createRoute({ getParentRoute: () => org, path: "finance/reconcile/$id" }).lazy(() => import("./reconcile/route").then((page) => page.reconciliationRoute));
const deposits = createRoute({ getParentRoute: () => org, path: "finance/deposits" }).lazy(() => import("./suspense/route").then((page) => page.suspenseRoute));
const month = createRoute({ getParentRoute: () => org, path: "finance/books/$month" }).lazy(() => import("./books/route").then((page) => page.monthRoute));
const sol = createRoute({ getParentRoute: () => org, path: "finance/sol", validateSearch: solSearch }).lazy(() => import("./sol/route").then((page) => page.solRoute));
const books = createRoute({ getParentRoute: () => org, path: "finance/books", validateSearch: booksSearch }).lazy(() => import("./books/route").then((page) => page.booksRoute));

const tree = root.addChildren([
  home,
  welcome,
  org.addChildren([orgHome, book, market, clusters, cluster, wallet, keys, hosts, newHost, host, earnings, statements, payouts, batch, payoutRun, reconcile, reconciliation, deposits, books, month, sol]),
]);

function PageFailure({ error, reset }: ErrorComponentProps) {
  return (
    <div className="page">
      <Failure error={error} onRetry={reset} />
    </div>
  );
}

function NotFound() {
  return (
    <div className="page not-found">
      <h1>Not found</h1>
      <p className="muted">There is no page at this address.</p>
      <p>
        <a href="/">Go to the start</a>
      </p>
    </div>
  );
}

export function makeRouter(queries: QueryClient) {
  return createRouter({
    routeTree: tree,
    context: { queries },
    defaultPreload: "intent",
    scrollRestoration: true,
    defaultErrorComponent: PageFailure,
    defaultNotFoundComponent: NotFound,
    defaultPendingComponent: () => <SkeletonRows rows={6} />,
    defaultPendingMs: 150,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
