import { createLazyRoute } from "@tanstack/react-router";
import { SuspensePage } from "./SuspensePage";

export const suspenseRoute = createLazyRoute("/o/$org/finance/deposits")({ component: SuspensePage });
