import { createLazyRoute } from "@tanstack/react-router";
import { HostPage } from "./HostPage";
import { HostsPage } from "./HostsPage";
import { NewHostPage } from "./NewHostPage";

export const hostsRoute = createLazyRoute("/o/$org/hosts")({ component: HostsPage });
export const newHostRoute = createLazyRoute("/o/$org/hosts/new")({ component: NewHostPage });
export const hostRoute = createLazyRoute("/o/$org/hosts/$id")({ component: HostPage });
