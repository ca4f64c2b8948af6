import { createLazyRoute } from "@tanstack/react-router";
import { KeysPage } from "./KeysPage";

export const keysRoute = createLazyRoute("/o/$org/keys")({ component: KeysPage });
