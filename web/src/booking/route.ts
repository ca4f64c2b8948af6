import { createLazyRoute } from "@tanstack/react-router";
import { BookPage } from "./BookPage";

export const bookRoute = createLazyRoute("/o/$org/new")({ component: BookPage });
