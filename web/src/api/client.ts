// The one way to the API: typed by the generated schema, errors as ApiError, the server's clock learned on the way.
import createClient, { type Middleware } from "openapi-fetch";
import { learnServerTime } from "../time/clock";
import { ApiError, asApiError, problemOf } from "./problem";
import type { paths } from "./schema";

const REQUEST_TIMEOUT_MS = 30_000;

const askedAt = new WeakMap<Request, number>();

const clock: Middleware = {
  onRequest({ request }) {
    askedAt.set(request, Date.now());
  },
  onResponse({ request, response }) {
    const asked = askedAt.get(request);
    if (asked !== undefined) learnServerTime(response.headers.get("Date"), asked, Date.now());
  },
};

export const client = createClient<paths>({
  baseUrl: typeof location === "undefined" ? "http://localhost" : location.origin,
  fetch: (request: Request) => fetch(request, { signal: AbortSignal.any([request.signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]) }),
});
client.use(clock);

type Answer<T> = { data: T; error?: never; response: Response } | { data?: never; error: unknown; response: Response };

/** The body of a successful answer; throws ApiError for any other. */
export async function unwrap<T>(pending: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await pending;
  } catch (error) {
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new ApiError({ code: "unavailable", detail: `Muster did not answer within ${REQUEST_TIMEOUT_MS / 1_000} seconds. Try again.` });
    }
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw asApiError(error);
  }
  if (!answer.response.ok) throw problemOf(answer.error, answer.response);
  return answer.data as T;
}
