#!/usr/bin/env bash
# Says what this machine lacks to build and run Muster, all of it at once, each with the Debian package that has it.
#
#   prerequisites.sh             what `make up`, `make tour` and `make build` need
#   prerequisites.sh test        that, and what the tests need
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

min_go=1.26 min_node=20 min_python=3.10 beyond_python=3.15

missing=()
lacks() { missing+=("$1"); }
has() { command -v "$1" >/dev/null 2>&1; }

check_go() {
    local text="Go $min_go or newer: apt-get install golang-go, or https://go.dev/dl/ where Debian's is older"
    if ! has go; then
        lacks "$text"
        return
    fi
    local version
    version=$(cd /; GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || true) # outside the module, which an old Go refuses
    version=${version#go}
    version_at_least "${version:-0}" "$min_go" || lacks "$text (found ${version:-one that does not run})"
}

check_node() {
    local text="Node.js $min_node or newer: apt-get install nodejs, or https://nodejs.org/ where Debian's is older"
    if has node; then
        local version
        version=$(node --version 2>/dev/null || true)
        version=${version#v}
        version_at_least "${version:-0}" "$min_node" || lacks "$text (found ${version:-one that does not run})"
    else
        lacks "$text"
    fi
    has npm || lacks "npm: apt-get install npm"
}

check_python() {
    local text="Python $min_python to 3.14: apt-get install python3"
    if ! has python3; then
        lacks "$text python3-venv"
        return
    fi
    local version
    version=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null || true)
    if ! version_at_least "${version:-0}" "$min_python" || version_at_least "$version" "$beyond_python"; then
        lacks "$text (found ${version:-one that does not run})"
        return
    fi
    python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || lacks "Python's venv: apt-get install python3-venv"
}

check_go
check_node
check_python
has cc || has gcc || lacks "a C compiler: apt-get install build-essential"
has make || lacks "make: apt-get install make"
has flock || lacks "flock: apt-get install util-linux"
if [[ ${1:-} == test ]]; then
    has chromium || lacks "Chromium, for the browser tests: apt-get install chromium"
    has shellcheck || lacks "ShellCheck: apt-get install shellcheck"
fi

if ((${#missing[@]} > 0)); then
    {
        printf 'This machine lacks:\n'
        printf '  - %s\n' "${missing[@]}"
    } >&2
    exit 1
fi
