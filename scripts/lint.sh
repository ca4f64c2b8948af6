#!/usr/bin/env bash
# The static checks. All of them run; the exit status says whether one failed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

scripts/prerequisites.sh test

failed=()
check() {
    local name=$1 started=$SECONDS
    shift
    say "lint: $name"
    if "$@"; then
        say "  ok in $((SECONDS - started)) s"
    else
        failed+=("$name")
        say "  FAILED after $((SECONDS - started)) s"
    fi
}

golangci=$(scripts/tool.sh golangci-lint)
buf=$(scripts/tool.sh buf)

check "go vet" go vet ./...
check "golangci-lint" "$golangci" run --timeout 15m
check "format of bench" "$golangci" fmt --diff bench/... # to look deeper, its peers would have to be built: minutes
check "buf" "$buf" lint
check "shellcheck" shellcheck --external-sources --source-path=SCRIPTDIR scripts/*.sh .ci/run
check "localnet types" npm --silent --prefix deploy/localnet run check
check "console types" npm --silent --prefix web run typecheck
check "console eslint" npm --silent --prefix web run lint
check "generated code" scripts/generate.sh --check

if ((${#failed[@]} > 0)); then
    die "lint failed: ${failed[*]}"
fi
