"""Measures what this version promises, beside its peer in the same run, and writes the table in docs/benchmarks.md.

    bench.py ready [RUNS]    a booked cluster against the same Ray topology started by hand (musterd tour)

Each figure is one logfmt line on standard output; a ratio above 1 is better than the peer. Medians over the runs.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"


def tours(runs: int) -> list[dict]:
    results = []
    for run in range(1, runs + 1):
        print(f"tour {run} of {runs}", file=sys.stderr)
        done = subprocess.run([ROOT / "bin" / "musterd", "tour"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
        if done.returncode != 0 or not last.startswith("{"):
            sys.exit(f"bench: the tour failed:\n{done.stdout}")
        results.append(json.loads(last))
    return results


def line(figure: str, value: float, unit: str, peer: str, peer_value: float) -> dict:
    ratio = peer_value / value if value else 0.0
    print(f"figure={figure} value={value:g} unit={unit} peer={peer} peer_value={peer_value:g} ratio={ratio:.3f}")
    return {"figure": figure, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value, "ratio": ratio}


def ready(runs: int) -> None:
    results = tours(runs)

    def median(name: str) -> float:
        return round(statistics.median(r[name] for r in results), 3)

    rows = [
        line("cluster_ready_s", median("cluster_ready_s"), "s", "ray-start-by-hand", median("bare_ray_ready_s")),
    ]
    write(rows, results)


def write(rows: list[dict], results: list[dict]) -> None:
    ratios = sorted(r["ready_ratio"] for r in results)
    text = [
        "# Benchmarks",
        "",
        f"Written by `make bench-ready` on {platform.system()} {platform.machine()} with {os.cpu_count()} cores. Ratios travel, absolute",
        f"figures do not: medians of {len(results)} runs, each of which measured Muster and its peer on the same machine.",
        "",
        "| figure | value | peer | peer's value | peer / value |",
        "|---|---|---|---|---|",
    ]
    text += [f"| `{r['figure']}` | {r['value']:g} {r['unit']} | {r['peer']} | {r['peer_value']:g} {r['unit']} | {r['ratio']:.2f} |" for r in rows]
    text += [
        "",
        "`cluster_ready_s` is the time from a booking until the API says that a cluster of a head and two GPU nodes is ready; the peer is",
        "the same topology started with `ray start`, with the same flags, until Ray's summary lists every node.",
        f"`ready_ratio` (value / peer) was {ratios[0]:g} to {ratios[-1]:g}; a whole tour took {statistics.median(r['total_s'] for r in results):g} s.",
        "",
    ]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(text))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] != "ready":
        sys.exit(__doc__)
    ready(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
