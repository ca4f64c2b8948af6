import { createContext, useContext } from "react";
import { INITIAL, type Link } from "./state";

export const LiveContext = createContext<Link>(INITIAL.link);

export function useLink(): Link {
  return useContext(LiveContext);
}

const LIVE_POLL_MS = 30_000;
const CUT_POLL_MS = 5_000;

/** How often to ask by oneself: pushed events only speed things up, asking guarantees them. */
export function usePoll(): number {
  return useLink().kind === "live" ? LIVE_POLL_MS : CUT_POLL_MS;
}
