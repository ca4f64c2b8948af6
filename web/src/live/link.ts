import { createContext, useContext } from "react";
import { INITIAL, type Link } from "./state";

export const LiveContext = createContext<Link>(INITIAL.link);

export function useLink(): Link {
  return useContext(LiveContext);
}

const FALLBACK_POLL_MS = 10_000;

/** How often to ask while nothing is pushed: not at all when the line is live. */
export function useFallbackPoll(): number | false {
  return useLink().kind === "live" ? false : FALLBACK_POLL_MS;
}
