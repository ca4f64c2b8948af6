import { createLazyRoute } from "@tanstack/react-router";
import { SolPage } from "./SolPage";

export const solRoute = createLazyRoute("/o/$org/finance/sol")({ component: SolPage });
