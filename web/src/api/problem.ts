import type { Problem } from "./types";

/** An error answer of the API, or the failure to get any. `code` is what the console acts on. */
export class ApiError extends Error {
  readonly code: string;
  readonly status: number;
  readonly requestId: string;
  readonly details: unknown;
  readonly fields: readonly { path: string; message: string; position?: number }[];

  constructor(problem: Partial<Problem> & { detail: string }) {
    super(problem.detail);
    this.name = "ApiError";
    this.code = problem.code ?? "internal";
    this.status = problem.status ?? 0;
    this.requestId = problem.request_id ?? "";
    this.details = problem.details;
    this.fields = problem.errors ?? [];
  }
}

/** The code of a request that got no answer at all. */
export const UNREACHABLE = "unreachable";

export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof TypeError) return new ApiError({ code: UNREACHABLE, detail: "Muster cannot be reached. Check the connection; the page tries again by itself." });
  return new ApiError({ detail: error instanceof Error ? error.message : "Something went wrong in this page." });
}

/** The problem document of an answer; proxies in between answer with anything. */
export function problemOf(body: unknown, response: Response): ApiError {
  if (typeof body === "object" && body !== null && "detail" in body && typeof body.detail === "string") {
    return new ApiError(body as Problem);
  }
  return new ApiError({ status: response.status, detail: `Muster answered ${response.status} without saying why. Try again.` });
}

/** Answers that another try can change. */
export function isTransient(error: unknown): boolean {
  const { code, status } = asApiError(error);
  return code === UNREACHABLE || code === "unavailable" || status === 502 || status === 503 || status === 504;
}
