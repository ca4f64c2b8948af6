#!/usr/bin/env bash
# Builds a development tool unless it is there, and prints its path. Its version is the one that tools/NAME/go.mod pins.
#
#   tool.sh NAME
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=${1:?name of a folder in tools/}
dir=$root/tools/$name
[[ -f $dir/go.mod ]] || die "there is no tool $name in tools/"

package=$(sed -n 's/^tool //p' "$dir/go.mod")
binary=$cache/tools/$name-$(digest "tools/$name/go.mod" "tools/$name/go.sum")/$name
if [[ ! -x $binary ]]; then
    one_at_a_time "tool-$name"
fi
if [[ ! -x $binary ]]; then
    # Without cgo sqlc parses SQL by WebAssembly and builds in a fifth of the time.
    CGO_ENABLED=0 with_progress "development tool $name (up to 2 minutes)" \
        go build -C "$dir" -trimpath -ldflags="-s -w" -o "$binary" "$package"
fi
printf '%s\n' "$binary"
