import { createLazyRoute } from "@tanstack/react-router";
import { MarketPage } from "./MarketPage";

export const marketRoute = createLazyRoute("/o/$org/market")({ component: MarketPage });
