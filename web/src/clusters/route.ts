import { createLazyRoute } from "@tanstack/react-router";
import { ClusterPage } from "./ClusterPage";
import { ClustersPage } from "./ClustersPage";

export const clustersRoute = createLazyRoute("/o/$org/clusters")({ component: ClustersPage });
export const clusterRoute = createLazyRoute("/o/$org/clusters/$id")({ component: ClusterPage });
