#!/usr/bin/env bash
# Writes all generated code: queries from SQL, the agent protocol, the OpenAPI document and the console's types from it.
#
#   generate.sh            write it
#   generate.sh --check    write it, and fail if that changed a file
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
one_at_a_time generate
cd "$root"

snapshot() { git ls-files --cached --others --exclude-standard -z | sort -z | xargs -0 sha256sum 2>/dev/null; }

[[ ${1:-} == --check ]] && before=$(snapshot)

sqlc=$(scripts/tool.sh sqlc)
buf=$(scripts/tool.sh buf)
go_plugin=$(scripts/tool.sh protoc-gen-go)
grpc_plugin=$(scripts/tool.sh protoc-gen-go-grpc)

say "queries (sqlc)"
"$sqlc" generate
say "agent protocol (buf)"
PATH=$(dirname "$go_plugin"):$(dirname "$grpc_plugin"):$PATH "$buf" generate
say "OpenAPI document"
mkdir -p "$cache"
go run ./api/specgen "$cache/openapi.json"
mv "$cache/openapi.json" api/openapi.json
say "the console's types"
npm --silent --prefix web run generate

if [[ ${1:-} == --check ]]; then
    changed=$(diff <(printf '%s\n' "$before") <(snapshot) | sed -n 's/^[<>] [0-9a-f]* *//p' | sort -u)
    [[ -z $changed ]] || die "generated code is out of date; it is written anew, commit it: "$'\n'"$changed"
fi
