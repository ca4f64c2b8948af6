export const FILTERS = ["live", "released", "failed"] as const;
export type Filter = (typeof FILTERS)[number];

export interface ClustersSearch {
  state?: Filter;
}

export function clustersSearch(raw: Record<string, unknown>): ClustersSearch {
  const state = FILTERS.find((filter) => filter === raw.state);
  return state === undefined ? {} : { state };
}

export const CONNECT_TABS = ["job", "python", "dashboard"] as const;
export type ConnectTab = (typeof CONNECT_TABS)[number];

export interface ClusterSearch {
  connect?: ConnectTab;
  job?: string;
}

export function clusterSearch(raw: Record<string, unknown>): ClusterSearch {
  const search: ClusterSearch = {};
  const tab = CONNECT_TABS.find((one) => one === raw.connect);
  if (tab !== undefined) search.connect = tab;
  if (typeof raw.job === "string" && /^[A-Za-z0-9._-]{1,128}$/.test(raw.job)) search.job = raw.job;
  return search;
}
