# shellcheck shell=bash
# Sourced by the scripts beside it: where things are, and how to speak.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
stamps=$cache/stamps

# Everything that is to run beside something else must read the same: no locale of the machine's.
export LC_ALL=C

# The C headers of NVIDIA's library mark functions that we still call for old drivers.
export CGO_CFLAGS="${CGO_CFLAGS:--O2 -g} -Wno-deprecated-declarations"

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# with_progress TEXT COMMAND...: runs the command with its output kept in a file, prints TEXT and every 15 s how long it has
# taken, and the file's end if the command fails.
with_progress() {
    local text=$1 log started=$SECONDS pid status=0
    shift
    mkdir -p "$cache"
    log=$(mktemp "$cache/step.XXXXXX")
    say "$text"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if ((SECONDS > started && (SECONDS - started) % 15 == 0)); then
            say "  ... $((SECONDS - started)) s"
        fi
    done
    wait "$pid" || status=$?
    if ((status != 0)); then
        tail -n 40 "$log" >&2
        rm -f "$log"
        die "$text: failed with status $status after $((SECONDS - started)) s"
    fi
    rm -f "$log"
    say "  done in $((SECONDS - started)) s"
}

# digest FILES...: one checksum of the files' names and contents, the same wherever the repository lies.
digest() { (cd "$root" && sha256sum -- "$@" | sha256sum | cut -c1-16); }

# is_stamped NAME VALUE and stamp NAME VALUE: whether a step was done for this value, and that it was.
is_stamped() { [[ -f $stamps/$1 && $(<"$stamps/$1") == "$2" ]]; }

stamp() {
    mkdir -p "$stamps"
    printf '%s\n' "$2" >"$stamps/$1"
}

# version_at_least HAVE WANT: compares dotted versions.
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# one_at_a_time NAME: waits until no other script holds the name; released when this script ends.
one_at_a_time() {
    mkdir -p "$cache"
    exec 9>"$cache/$1.lock"
    flock 9
}
