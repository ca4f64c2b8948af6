import { createLazyRoute } from "@tanstack/react-router";
import { BooksPage } from "./BooksPage";

export const booksRoute = createLazyRoute("/o/$org/finance/books")({ component: BooksPage });
