import { createLazyRoute } from "@tanstack/react-router";
import { EarningsPage } from "./EarningsPage";

export const earningsRoute = createLazyRoute("/o/$org/earnings")({ component: EarningsPage });
