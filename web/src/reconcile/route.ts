import { createLazyRoute } from "@tanstack/react-router";
import { ReconcilePage } from "./ReconcilePage";
import { ReconciliationPage } from "./ReconciliationPage";

export const reconcileRoute = createLazyRoute("/o/$org/finance/reconcile")({ component: ReconcilePage });
export const reconciliationRoute = createLazyRoute("/o/$org/finance/reconcile/$id")({ component: ReconciliationPage });
