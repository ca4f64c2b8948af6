import { createLazyRoute } from "@tanstack/react-router";
import { StatementsPage } from "./StatementsPage";

export const statementsRoute = createLazyRoute("/o/$org/statements")({ component: StatementsPage });
