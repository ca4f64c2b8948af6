#!/usr/bin/env bash
# Kills settlement at every step, through faulty providers, on PostgreSQL and the local chain, and prints the seeds and one logfmt
# line a figure.
#
#   CHAOS_SEEDS    runs for each step, 20 by default
#   MUSTER_SEED    the first seed; without it a random one
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

seeds=${CHAOS_SEEDS:-20}
export MUSTER_SEED=${MUSTER_SEED:-$((RANDOM << 15 | RANDOM))}
at_once=6 # runs mostly wait for the chain
budget=$((36 * (seeds > 20 ? seeds : 20))) # seconds for all tests together: 12 minutes with the usual seeds

if [[ -z ${MUSTER_TEST_DATABASE_URL:-} ]]; then
    [[ $(scripts/testdb.sh start) == running ]] || trap 'scripts/testdb.sh stop >&2' EXIT
fi
mkdir -p "$cache"
MUSTER_FIGURES=$cache/chaos.figures
export MUSTER_FIGURES
rm -f "$MUSTER_FIGURES"
say "chaos: $seeds seeds for each step, from MUSTER_SEED=$MUSTER_SEED"
go test -race -c -o "$cache/chaos.test" ./settlement/chaos

# Each test has a chain of its own: reading one that hundreds of runs have filled takes too long.
status=0
started=$SECONDS
for test in $(cd settlement/chaos && "$cache/chaos.test" -test.list .); do
    left=$((budget - SECONDS + started))
    if ((left <= 0)); then
        status=1
        say "chaos: the $budget s are over; $test and what follows have not run"
        break
    fi
    say "chaos: $test"
    log=$cache/chaos-$test.log
    if ! (cd settlement/chaos && "$cache/chaos.test" -test.run "^$test\$" -test.timeout "${left}s" -test.parallel "$at_once" \
        -chaos.seeds="$seeds") >"$log" 2>&1; then
        status=1
        tail -n 100 "$log" >&2
        say "chaos: $test failed; all of it is in $log"
    fi
done
say "chaos: took $((SECONDS - started)) s"
[[ ! -f $MUSTER_FIGURES ]] || cat "$MUSTER_FIGURES"
((status == 0)) || say "chaos: the same again with MUSTER_SEED=$MUSTER_SEED"
exit "$status"
