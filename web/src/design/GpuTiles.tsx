// GPUs as tiles, a row of eight a host: full is leased, outlined is free, a heavy edge is unhealthy, hatched is no data.
export type Fill = "leased" | "starting" | "free" | "bad" | "none";

const WORDS: Record<Fill, string> = { leased: "leased", starting: "starting", free: "free", bad: "unhealthy", none: "no data" };

export function GpuTiles({ fills, titles }: { fills: readonly Fill[]; titles?: readonly string[] }) {
  if (fills.length === 0) return <span className="muted">none</span>;
  return (
    <span className="gpus" data-count={fills.length} role="img" aria-label={describe(fills)}>
      {fills.map((fill, index) => (
        <span key={index} className="gpu" data-fill={fill} title={titles?.[index] ?? WORDS[fill]} />
      ))}
    </span>
  );
}

function describe(fills: readonly Fill[]): string {
  const counts = new Map<Fill, number>();
  for (const fill of fills) counts.set(fill, (counts.get(fill) ?? 0) + 1);
  const parts = [...counts].map(([fill, count]) => `${count} ${WORDS[fill]}`);
  return `${fills.length} ${fills.length === 1 ? "GPU" : "GPUs"}: ${parts.join(", ")}`;
}
