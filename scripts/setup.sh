#!/usr/bin/env bash
# Brings what the repository needs into it: npm packages, Ray in a virtual environment, the three programs with the console
# embedded. What is there already is left alone, so that a second run takes seconds.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
one_at_a_time setup

ray_version=2.60.0

# npm_packages DIR EXPECTED COMMAND...: the command installs what DIR/package-lock.json names.
npm_packages() {
    local dir=$1 expected=$2 value
    shift 2
    value="$(digest "$dir/package-lock.json") node$(node -p 'process.versions.modules')"
    if is_stamped "npm-${dir//\//-}" "$value" && [[ -d $root/$dir/node_modules ]]; then
        return
    fi
    with_progress "npm packages of $dir (about $expected)" npm --prefix "$root/$dir" "$@" --no-audit --no-fund
    stamp "npm-${dir//\//-}" "$value"
}

# Ray's nodes must have the same Python patch version, so the environment's name says which one it is.
ray_environment() {
    local python venv value
    python=$(python3 -c 'import platform; print(platform.python_version())')
    venv=$cache/ray-$ray_version-py$python
    value="$venv $(digest scripts/ray-constraints.txt)"
    if ! is_stamped ray "$value" || [[ ! -x $venv/bin/ray ]]; then
        with_progress "Ray $ray_version for Python $python (about 1 minute, 100 MB)" install_ray "$venv"
        stamp ray "$value"
    fi
    ln -sfn "ray-$ray_version-py$python" "$cache/ray"
}

install_ray() {
    python3 -m venv --clear "$1"
    "$1/bin/pip" install --disable-pip-version-check --only-binary :all: \
        --constraint "$root/scripts/ray-constraints.txt" "ray[default]==$ray_version"
}

console() {
    local value
    value=$(cd "$root" && find web -type d \( -name node_modules -o -path web/dist -o -path web/e2e \) -prune -o -type f -print0 |
        sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
    if is_stamped console "$value" && [[ -f $root/web/dist/index.html ]]; then
        return
    fi
    with_progress "the console (about 15 s)" npm --prefix "$root/web" run build
    stamp console "$value"
}

programs() {
    mkdir -p "$root/bin"
    (cd "$root" && go build -o bin/ ./cmd/muster ./cmd/musterd ./cmd/muster-worker)
}

"$root/scripts/prerequisites.sh"
# LiteSVM lists a package for every platform, and npm ci refuses the lock file where a registry lacks one of the others'.
npm_packages deploy/localnet "15 s" install --no-save
npm_packages web "30 s" ci
ray_environment
console
if [[ -x $root/bin/musterd ]]; then
    programs
else
    with_progress "muster, musterd and muster-worker (about 4 minutes the first time)" programs
fi
