// One icon set, drawn on a 12 px grid. Icons never carry meaning alone: a word stands beside each.
import type { ReactNode } from "react";

function Icon({ children }: { children: ReactNode }) {
  return (
    <svg width="12" height="12" viewBox="0 0 12 12" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      {children}
    </svg>
  );
}

export const icons = {
  ok: (
    <Icon>
      <circle cx="6" cy="6" r="5" />
      <path d="m4 6.2 1.4 1.4L8.2 4.6" />
    </Icon>
  ),
  busy: (
    <Icon>
      <path d="M6 1a5 5 0 1 1-5 5" />
      <path d="M6 3.6V6l1.6 1" />
    </Icon>
  ),
  warn: (
    <Icon>
      <path d="M6 1.4 11 10.4H1z" />
      <path d="M6 5v2.2M6 8.9v.1" />
    </Icon>
  ),
  bad: (
    <Icon>
      <circle cx="6" cy="6" r="5" />
      <path d="m4.2 4.2 3.6 3.6m0-3.6L4.2 7.8" />
    </Icon>
  ),
  unknown: (
    <Icon>
      <circle cx="6" cy="6" r="5" />
      <path d="M3.8 6h4.4" />
    </Icon>
  ),
  copy: (
    <Icon>
      <rect x="4" y="4" width="7" height="7" rx="1" />
      <path d="M8 4V2a1 1 0 0 0-1-1H2a1 1 0 0 0-1 1v5a1 1 0 0 0 1 1h2" />
    </Icon>
  ),
  down: (
    <Icon>
      <path d="m3 4.5 3 3 3-3" />
    </Icon>
  ),
  external: (
    <Icon>
      <path d="M7 1h4v4M11 1 5.5 6.5M9 7v3a1 1 0 0 1-1 1H2a1 1 0 0 1-1-1V4a1 1 0 0 1 1-1h3" />
    </Icon>
  ),
} as const;
