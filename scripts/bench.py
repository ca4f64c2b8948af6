"""Measures what this version promises, beside peers in the same run, and writes docs/benchmarks.md.

    bench.py NAME [RUNS]

    ready       a booked cluster against the same Ray started by hand (musterd tour)
    placement   gangs at 5,000 and 100,000 hosts against kube-scheduler, Nomad and a linear scan (bench/, a Go module of its own)
    fleet       what a large fleet's heartbeats cost
    book        durable bookings through the applier, and what a leader's death costs them
    ledger      durable transfers, on one hot account and on many, beside pgledger (MUSTER_PGLEDGER_DIR: a checkout of it)
    payouts     what a payout costs on the chain and in CPU time, and a run of 100,000 payees
    reconcile   a million chain transfers against a million of the ledger's
    chaos       payments made twice or lost while settlement is killed at every step, through faulty RPC providers

Each tool prints one logfmt line a figure: figure=... value=... unit=..., then peer=... peer_value=... ratio=... where it has a
peer, then key=value pairs of its own. A ratio above 1 is better than the peer. Anything else on its standard output is refused.
Of several runs the medians count. Each benchmark keeps its own section of the page and leaves the others as they are.
"""

import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"

PREAMBLE = """# Benchmarks

Written by `make bench`; each section by its own command. Ratios travel, absolute figures do not: Muster and its peer were measured
by one command on one machine, and a ratio above 1 is better than the peer.
"""

REQUIRED = ("figure", "value", "unit")
PEER = ("peer", "peer_value", "ratio")
LOAD = f"a load of {os.getloadavg()[0]:.1f} when it began"  # a busy machine is slow for all, and slowest for what runs in parallel
ROUNDING = 0.05  # between a printed ratio and that of the printed values


class BadLine(Exception):
    """A tool printed something that is no figure."""


@dataclass(frozen=True)
class Goal:
    """What a figure shall reach. Figures without one are shown only."""

    value: float
    larger: bool = False  # a larger value is better
    ratio: float | None = None
    beside: tuple[str, ...] = ("",)  # how the names of the peers begin that the ratio is about


@dataclass(frozen=True)
class Benchmark:
    title: str
    tool: tuple[str, ...]  # its command, in the repository's root
    runs: int
    expected: tuple[str, ...]  # figures that it must print
    notes: str
    durable: bool = False  # beside a PostgreSQL server that waits for the disk


CRASHED = ("", "_cancelled", "_withdrawals", "_deposits", "_sweeps")  # what is killed in chaos; "" is payouts of earnings

GOALS = {
    "gang_p99_us": Goal(50, ratio=1000, beside=("kube-scheduler", "nomad")),
    "gang_churn_p99_us": Goal(200),
    "index_mb": Goal(100),
    "bookings_per_s": Goal(5000, larger=True, ratio=3),
    "booking_p99_ms": Goal(20),
    "accept_p50_ms": Goal(10),
    "heartbeat_cores": Goal(0.25),
    "failover_s": Goal(3),
    "ledger_hot_per_s": Goal(30_000, larger=True, ratio=50),
    "ledger_uniform_per_s": Goal(20_000, larger=True, ratio=10),
    "build_sign_ratio": Goal(1000, ratio=10),
    "payees_per_tx": Goal(56, larger=True),
    "lamports_per_payee": Goal(105),
    "payout_100k_s": Goal(30),
    "payout_100k_mb": Goal(500),
    "reconcile_1m_s": Goal(60),
    "reconcile_1m_mb": Goal(1000),
    **{f"crash_{what}{of}": Goal(0) for of in CRASHED for what in ("double", "lost")},
    "crash_double_control": Goal(1, larger=True),
}

BENCHMARKS = {
    "ready": Benchmark(
        title="a booked cluster against the same Ray started by hand",
        tool=("bin/musterd", "tour"),
        runs=3,
        expected=("cluster_ready_s",),
        notes="`cluster_ready_s` is the time from a booking until the API says that a cluster of a head and two GPU nodes is ready; the\n"
        "peer is the same topology started with `ray start`, with the same flags, until Ray's summary lists every node.",
    ),
    "placement": Benchmark(
        title="the cheapest gang, beside other schedulers",
        tool=("go", "-C", "bench", "run", "-mod=mod", "./placement"),  # its go.mod follows the repository's
        runs=1,
        expected=("gang_p99_us", "gang_churn_p99_us", "index_mb"),
        notes="A booking is a gang of 8 nodes with 8 GPUs each, within regions and under a price. Every engine gets the same hosts and the\n"
        "same bookings, one at a time, in the memory of one process; a booking's time is that of deciding on all nodes and holding their\n"
        "GPUs. `bench/placement/main.go` says what is left out in the peers' favour. Peers do not look for the cheapest gang:\n"
        "`peer_markup` is how much more theirs cost. `-score-all` makes kube-scheduler look at all hosts, `-price-affinity` makes Nomad\n"
        "prefer cheap ones. The scan is one pass over arrays that knows these bookings' conditions only. For `gang_churn_p99_us`, hosts\n"
        "change their price, their state or what is free all the while.",
    ),
    "fleet": Benchmark(
        title="a fleet's heartbeats",
        tool=("go", "run", "./internal/simfleet/fleetbench"),
        runs=1,
        expected=("heartbeat_cores",),
        notes="`heartbeat_cores` is what the control plane spends on 100,000 agents that report each 10 s over their real streams, in\n"
        "cores. Where the machine holds fewer streams (`limited_by`), the figure is extrapolated from those of the last column. In\n"
        "`heartbeat_cores_full_rate` these streams say everything so many times as often that the gateway hears as much as from 100,000, and\n"
        "heartbeats share wake-ups as theirs would.",
        durable=True,
    ),
    "book": Benchmark(
        title="durable bookings",
        tool=("go", "run", "./scheduler/applier/bookbench"),
        runs=1,
        expected=("bookings_per_s", "booking_p99_ms", "bookings_per_s_of_1", "bookings_per_s_of_2", "accept_p50_ms", "failover_s"),
        notes="PostgreSQL waits for the disk (`fsync`, `synchronous_commit` and `full_page_writes` are on). `bookings_per_s` and\n"
        "`booking_p99_ms` are of gangs of 8 nodes whose leases, nodes and holds are committed, `bookings_per_s_of_1` and\n"
        "`bookings_per_s_of_2` of smaller ones; `cpu_ms` and `postgres_cpu_ms` are what a booking takes in the applier and in PostgreSQL.\n"
        "`accept_p50_ms` is an accepted quote until `reserved` through the HTTP API; `failover_s` is from the killing of a leader\n"
        "at full load until the next one, which stands by with the fleet in memory, books: the longest of the runs. A checkpoint before\n"
        "all leaves segments of the log to write over, as on a server that has run for a while.",
        durable=True,
    ),
    "ledger": Benchmark(
        title="durable transfers",
        tool=("go", "run", "./settlement/ledger/ledgerbench"),
        runs=1,
        expected=("ledger_hot_per_s", "ledger_uniform_per_s", "ledger_post_p99_ms"),
        notes="PostgreSQL waits for the disk (`fsync`, `synchronous_commit` and `full_page_writes` are on). Every transfer is a call with a key\n"
        "and an answer of its own, and a row; callers that come together share a transaction. In `ledger_hot_per_s` one side of each is the same\n"
        "account, in `ledger_uniform_per_s` both are any of 100,000; `ledger_post_p99_ms` is a caller's wait at half the uniform rate. The peer\n"
        "makes one transfer a call and transaction on 16 connections, as its own benchmark does; `peer_batched_per_s` is what its function for an\n"
        "array of transfers does with 1,000 a transaction. It reads no idempotency key. Both take turns on one server, in rounds; a ratio is the\n"
        "median of the rounds', of which `ratio_min` and `ratio_max` are the outermost. The peer is the commit that\n"
        "`settlement/ledger/ledgerbench/peer.go` names; without a checkout of it in `MUSTER_PGLEDGER_DIR` there are no ratios, and the command\n"
        "says how to get one. In the end the ledger is replayed.",
        durable=True,
    ),
    "payouts": Benchmark(
        title="what payouts cost",
        tool=("go", "run", "./settlement/payouts/payoutbench"),
        runs=1,
        expected=(
            "build_sign_ratio",
            "build_sign_v0_ratio",
            "build_sign_legacy_ratio",
            "payees_per_tx",
            "lamports_per_payee",
            "payout_100k_s",
            "payout_100k_cpu_s",
            "payout_100k_mb",
        ),
        notes="`build_sign_ratio` and `build_ratio` are CPU time of the whole process, in turns with solana-go's builder and key, whose bytes are\n"
        "compared first: of version 1, which payouts are made in, and by name of the formats for chains that refuse it. Fees are what the local chain charged: for 56 payees in one transaction with a durable nonce, a memo and the usual\n"
        "priority fee, and for one TransferChecked in a transaction of its own, which is what solana-tokens sends. `payout_100k_s` is from the\n"
        "start of a run until every batch is final and booked; approvals are given at once, PostgreSQL waits for the disk, the signer is a\n"
        "process of its own, and the chain takes at most 100 transactions a second. Chain, database and service share the machine;\n"
        "`payout_100k_cpu_s` is what each of them took of it, the local chain's share being that of executing the transactions.",
        durable=True,
    ),
    "reconcile": Benchmark(
        title="a long history reconciled",
        tool=("go", "run", "./settlement/reconcile/reconcilebench"),
        runs=1,
        expected=("reconcile_1m_s", "reconcile_1m_mb"),
        notes="A full run over 1,000,000 transfers on one account: the walk with its continuity proof, the ledger's replay, and the match of\n"
        "both sides in the order of their signatures. The ledger's transfers were posted through its own code; the chain's history is\n"
        "generated as it is walked, so fetching it from an endpoint is not counted. Memory is this process's, without PostgreSQL's.",
        durable=True,
    ),
    "chaos": Benchmark(
        title="no payment twice, none lost",
        tool=("scripts/chaos.sh",),
        runs=1,
        expected=(*(f"crash_{what}{of}" for of in CRASHED for what in ("double", "lost")), "crash_double_control"),
        notes="`make chaos`: a process is killed at every step that the code names, with as many seeds each as `seeds` spans, while two\n"
        "faulty providers stand between it and the local chain; PostgreSQL and the signer are real. After each run every payee must hold on\n"
        "the chain what the ledger says, and the ledger must sum to zero. `crash_double` and `crash_lost` are of owners' payouts, the others\n"
        "of what their names say; withdrawals count refunds, too. `payments` is how many there were. `crash_double_control` is a copy that\n"
        "sends before it stores, under the same crashes and faults: what it pays twice shows that the others could fail.",
    ),
}


@dataclass
class Figure:
    figure: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    more: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        parts = [f"figure={self.figure}", f"value={number(self.value)}", f"unit={self.unit}"]
        if self.peer is not None:
            parts += [f"peer={self.peer}", f"peer_value={number(self.peer_value)}", f"ratio={number(self.ratio)}"]
        return " ".join(parts + [f"{key}={value}" for key, value in self.more.items()])


def number(value: float) -> str:
    """Four digits are more than a run is worth; larger ones are whole."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def real(text: str, line: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadLine(f"{text!r} is no number: {line}")
    return value


def parse_line(line: str) -> Figure:
    pairs: dict[str, str] = {}
    for part in line.split(" "):
        key, separator, value = part.partition("=")
        if not separator or not value or not re.fullmatch(r"[a-z][a-z0-9_]*", key):
            raise BadLine(f"{part!r} is not key=value: {line}")
        if key in pairs:
            raise BadLine(f"{key} is there twice: {line}")
        if "|" in value or "`" in value:
            raise BadLine(f"{value!r} would break the table: {line}")
        pairs[key] = value
    if missing := [key for key in REQUIRED if key not in pairs]:
        raise BadLine(f"{', '.join(missing)} missing: {line}")
    if tuple(pairs)[: len(REQUIRED)] != REQUIRED:
        raise BadLine(f"a line begins with {', '.join(REQUIRED)}: {line}")
    figure = Figure(pairs.pop("figure"), real(pairs.pop("value"), line), pairs.pop("unit"))
    if any(key in pairs for key in PEER):
        if missing := [key for key in PEER if key not in pairs]:
            raise BadLine(f"{', '.join(missing)} missing beside a peer: {line}")
        figure.peer = pairs.pop("peer")
        figure.peer_value, figure.ratio = real(pairs.pop("peer_value"), line), real(pairs.pop("ratio"), line)
        check_ratio(figure, pairs, line)
    figure.more = pairs
    return figure


def check_ratio(figure: Figure, more: dict[str, str], line: str) -> None:
    """Above 1 is better: the peer's value over ours, or the other way round where more is better. With ratio_min and ratio_max it is
    the median of several, and that of the values lies among them too."""
    if figure.value <= 0 or figure.peer_value <= 0:
        raise BadLine(f"a ratio wants positive values: {line}")
    ratio = figure.peer_value / figure.value
    goal = GOALS.get(figure.figure)
    wanted = [1 / ratio] if goal and goal.larger else [ratio] if goal else [ratio, 1 / ratio]
    low, high = (real(more.get(name, str(figure.ratio)), line) for name in ("ratio_min", "ratio_max"))
    if not low <= figure.ratio <= high:
        raise BadLine(f"the ratio is not among those of the rounds: {line}")
    if not any(low * (1 - ROUNDING) - 0.005 <= want <= high * (1 + ROUNDING) + 0.005 for want in wanted):
        raise BadLine(f"the ratio is not that of the values: {line}")


def parse(output: str, expected: tuple[str, ...] = ()) -> list[Figure]:
    figures = [parse_line(line) for line in output.splitlines() if line.strip()]
    names = [(f.figure, f.peer) for f in figures]
    for name in names:
        if names.count(name) > 1:
            raise BadLine(f"{name[0]} is there twice with the same peer")
    if missing := [name for name in expected if name not in {f.figure for f in figures}]:
        raise BadLine(f"no figure {', '.join(missing)}")
    return figures


def medians(runs: list[list[Figure]]) -> list[Figure]:
    """One figure for all runs, number by number; what is no number is the first run's."""
    by_name = [{(f.figure, f.peer): f for f in run} for run in runs]
    for names in by_name[1:]:
        if names.keys() != by_name[0].keys():
            raise BadLine("the runs printed different figures")
    return [median([names[name] for names in by_name]) for name in by_name[0]]


def median(figures: list[Figure]) -> Figure:
    first = figures[0]
    result = Figure(first.figure, statistics.median(f.value for f in figures), first.unit)
    if first.peer is not None:
        result.peer = first.peer
        result.peer_value = statistics.median(f.peer_value for f in figures)
        result.ratio = statistics.median(f.ratio for f in figures)
    for key, text in first.more.items():
        try:
            result.more[key] = number(statistics.median(float(f.more[key]) for f in figures))
        except (KeyError, ValueError):
            result.more[key] = text
    return result


def verdict(figure: Figure) -> str:
    goal = GOALS.get(figure.figure)
    if goal is None:
        return ""
    better = figure.value >= goal.value if goal.larger else figure.value <= goal.value
    text = f"{'>=' if goal.larger else '<='} {goal.value:,g} {figure.unit}"
    if goal.ratio is not None and figure.ratio is not None and figure.peer.startswith(goal.beside):
        better = better and figure.ratio >= goal.ratio
        text += f", ratio >= {goal.ratio:,g}"
    return f"{text}: {'met' if better else '**missed**'}"


def table(figures: list[Figure]) -> str:
    rows = ["| figure | value | goal | peer | peer's value | ratio | measured |", "|---|---|---|---|---|---|---|"]
    for f in figures:
        peer = ("", "", "")
        if f.peer is not None:
            peer = (f.peer, f"{number(f.peer_value)} {f.unit}", number(f.ratio))
        more = ", ".join(f"{key} {value}" for key, value in f.more.items())
        rows.append("| " + " | ".join((f"`{f.figure}`", f"{number(f.value)} {f.unit}", verdict(f), *peer, more)) + " |")
    return "\n".join(rows)


def machine() -> str:
    cpus, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = ""
    if (info := Path("/proc/cpuinfo")).exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        model = f" ({found[1].strip()})" if found else ""
    return f"{platform.system()} {platform.machine()}, {cpus} cores{model}, {memory:.0f} GiB of memory"


def section(name: str, figures: list[Figure], runs: int, note: str = "") -> str:
    benchmark = BENCHMARKS[name]
    how = "one run" if runs == 1 else f"medians of {runs} runs"
    parts = [f"{heading(name)}: {benchmark.title}", f"{machine()}, {LOAD}; {how}.", table(figures), benchmark.notes, note]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(name: str) -> str:
    return f"## `make bench-{name}`"


def replaced(page: str, name: str, text: str) -> str:
    """The page with that section in place of the one it had. Sections are in the order of BENCHMARKS, unknown ones last."""
    sections = {found[1]: found[0] for found in re.finditer(r"^## `make bench-([a-z]+)`.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)}
    sections[name] = text
    order = [known for known in BENCHMARKS if known in sections] + [other for other in sections if other not in BENCHMARKS]
    return "\n".join([PREAMBLE] + [sections[each].rstrip("\n") + "\n" for each in order])


def publish(name: str, runs: list[list[Figure]], note: str = "") -> None:
    figures = medians(runs)
    for figure in figures:
        print(figure.line(), flush=True)
    old = PAGE.read_text() if PAGE.exists() else ""
    PAGE.parent.mkdir(exist_ok=True)
    new = PAGE.with_name(PAGE.name + ".new")
    new.write_text(replaced(old, name, section(name, figures, len(runs), note)))
    new.replace(PAGE)


def run_tool(name: str) -> str:
    benchmark = BENCHMARKS[name]
    command = [*benchmark.tool]
    if benchmark.durable:
        command = ["go", "run", "./internal/embeddedpg/benchpg", *command]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} failed with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def ready(output: str, tours: list[dict]) -> list[Figure]:
    """A tour's last line is what happened, as JSON."""
    last = output.strip().splitlines()[-1] if output.strip() else ""
    if not last.startswith("{"):
        raise BadLine(f"the tour's last line is no JSON object: {last}")
    tour = json.loads(last)
    tours.append(tour)
    value, peer = tour["cluster_ready_s"], tour["bare_ray_ready_s"]
    return [Figure("cluster_ready_s", value, "s", "ray-start-by-hand", peer, peer / value)]


def tours_note(tours: list[dict]) -> str:
    ratios = sorted(tour["ready_ratio"] for tour in tours)
    total = statistics.median(tour["total_s"] for tour in tours)
    return f"`ready_ratio` (value / peer) was {ratios[0]:g} to {ratios[-1]:g}; a whole tour took {total:g} s."


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2 or arguments[0] not in BENCHMARKS or not all(re.fullmatch("[1-9][0-9]?", n) for n in arguments[1:]):
        sys.exit(__doc__)
    name = arguments[0]
    benchmark = BENCHMARKS[name]
    count = int(arguments[1]) if len(arguments) > 1 else benchmark.runs
    runs, tours = [], []
    try:
        for run in range(1, count + 1):
            print(f"bench: {name}, run {run} of {count}", file=sys.stderr)
            output = run_tool(name)
            runs.append(ready(output, tours) if name == "ready" else parse(output, benchmark.expected))
        publish(name, runs, tours_note(tours) if tours else "")
    except BadLine as error:
        sys.exit(f"bench: {name}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
