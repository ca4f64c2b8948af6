import { createLazyRoute } from "@tanstack/react-router";
import { BooksPage } from "./BooksPage";
import { MonthPage } from "./MonthPage";

export const booksRoute = createLazyRoute("/o/$org/finance/books")({ component: BooksPage });
export const monthRoute = createLazyRoute("/o/$org/finance/books/$month")({ component: MonthPage });
