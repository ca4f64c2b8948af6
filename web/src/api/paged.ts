// Lists of the API come in pages; every list of the console shows the pages read so far and "Show more".
import { infiniteQueryOptions, type QueryKey } from "@tanstack/react-query";

interface Page<T> {
  items: T[];
  next_cursor?: string;
}

interface PageQuery {
  cursor?: string;
}

export function paged<T>(queryKey: QueryKey, fetchPage: (page: PageQuery, signal: AbortSignal) => Promise<Page<T>>) {
  return infiniteQueryOptions({
    queryKey,
    queryFn: ({ pageParam, signal }) => fetchPage(pageParam === "" ? {} : { cursor: pageParam }, signal),
    initialPageParam: "",
    getNextPageParam: (last: Page<T>) => last.next_cursor ?? undefined,
    select: (data) => data.pages.flatMap((page) => page.items),
  });
}
