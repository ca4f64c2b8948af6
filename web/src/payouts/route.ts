import { createLazyRoute } from "@tanstack/react-router";
import { BatchPage } from "./BatchPage";
import { PayoutsPage } from "./PayoutsPage";
import { RunPage } from "./RunPage";

export const payoutsRoute = createLazyRoute("/o/$org/finance/payouts")({ component: PayoutsPage });
export const batchRoute = createLazyRoute("/o/$org/finance/payouts/$id")({ component: BatchPage });
export const runRoute = createLazyRoute("/o/$org/finance/payouts/runs/$run")({ component: RunPage });
