import { useEffect, useState } from "react";
import { serverNow } from "./clock";

/** The server's time, refreshed every intervalMs while active. */
export function useNow(intervalMs: number, active = true): number {
  const [now, setNow] = useState(serverNow);
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => setNow(serverNow()), intervalMs);
    return () => clearInterval(timer);
  }, [intervalMs, active]);
  return now;
}
