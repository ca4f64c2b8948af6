#!/usr/bin/env bash
# Runs the tests and prints, as the last line, how many passed and failed in all. A skipped test counts as failed, and so does
# a suite that cannot run.
#
#   test.sh [SUITE...]    go, localnet, console, pages, stack, e2e; all of them by default
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

suites=("$@")
((${#suites[@]} > 0)) || suites=(go localnet console pages stack e2e)

go_timeout=20m
suite_timeout=20m # of the others
logs=$cache/test
passed=0 failed=0 summary=()

# go_tests SUITE PACKAGE...
go_tests() {
    local suite=$1
    shift
    "$(scripts/tool.sh gotestsum)" --format "${MUSTER_TEST_FORMAT:-pkgname-and-test-fails}" --format-hide-empty-pkg \
        --hide-summary=skipped --jsonfile "$logs/$suite.json" -- -race -count=1 -p 2 -timeout "$go_timeout" "$@"
}

# The whole stack with real Ray wants the machine to itself, so its package runs after the others.
run_go() {
    local packages
    mapfile -t packages < <(go list ./... | grep -v '/e2e$')
    go_tests go "${packages[@]}"
}
run_stack() { go_tests stack ./e2e; }

run_localnet() { timeout "$suite_timeout" npm --prefix deploy/localnet test; }
run_console() { timeout "$suite_timeout" npm --prefix web test; }
run_pages() { timeout "$suite_timeout" npm --prefix web run test:pages; }
run_e2e() { timeout "$suite_timeout" npm --prefix web run e2e; }

# count_go SUITE
count_go() {
    local events
    events=$(grep -F '"Test":' "$logs/$1.json" | grep -oE '"Action":"(pass|fail|skip)"' || true)
    pass=$(grep -c pass <<<"$events" || true)
    fail=$(grep -cE 'fail|skip' <<<"$events" || true)
}

# count_node reads the closing lines of node --test ("# pass 3", "ℹ fail 0") and of Vitest ("Tests  1 failed | 12 passed (13)").
count_node() {
    read -r pass fail < <(sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        function add(word, n) {
            if (word ~ /^pass/) pass += n
            else if (word ~ /^(fail|cancelled|skipped|todo)/) fail += n
        }
        /^(#|ℹ) [a-z]+ [0-9]+$/ { add($2, $3) }
        /^ *Tests  / { for (i = 2; i < NF; i++) if ($i ~ /^[0-9]+$/) add($(i + 1), $i) }
        END { print pass + 0, fail + 0 }')
}

run_suite() {
    local suite=$1 started=$SECONDS status=0 pass=0 fail=0
    say "test: $suite"
    "run_$suite" 2>&1 | tee "$logs/$suite.log" || status=$?
    if [[ -f $logs/$suite.json ]]; then
        count_go "$suite"
    else
        count_node "$logs/$suite.log"
    fi
    if ((status != 0 && fail == 0 || pass + fail == 0)); then
        fail=$((fail + 1)) # it did not build, or ended before its tests did
    fi
    passed=$((passed + pass)) failed=$((failed + fail))
    summary+=("$(printf '%-10s %5d passed %4d failed %5d s' "$suite" "$pass" "$fail" "$((SECONDS - started))")")
}

for suite in "${suites[@]}"; do
    declare -F "run_$suite" >/dev/null || die "there is no suite $suite: go, localnet, console, pages, stack, e2e"
done
scripts/prerequisites.sh test
rm -rf "$logs"
mkdir -p "$logs"

if [[ -z ${MUSTER_TEST_DATABASE_URL:-} ]]; then
    [[ $(scripts/testdb.sh start) == running ]] || trap 'scripts/testdb.sh stop' EXIT
fi
for suite in "${suites[@]}"; do
    run_suite "$suite"
done

printf '\n'
printf '%s\n' "${summary[@]}"
printf '%d %d\n' "$passed" "$failed" >"$logs/counts"
printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
