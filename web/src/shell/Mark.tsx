/** The mark: four GPU tiles, one of them idle. */
export function Mark() {
  return (
    <svg width="16" height="16" viewBox="0 0 16 16" fill="var(--accent)" aria-hidden="true">
      <rect x="1" y="1" width="6" height="6" rx="1" />
      <rect x="9" y="1" width="6" height="6" rx="1" />
      <rect x="1" y="9" width="6" height="6" rx="1" />
      <rect x="9" y="9" width="6" height="6" rx="1" opacity=".35" />
    </svg>
  );
}
