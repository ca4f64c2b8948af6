#!/usr/bin/env bash
# Starts or stops the PostgreSQL server that the tests share. It keeps running between test runs.
#
#   testdb.sh start    print "started" or, when it ran already, "running"
#   testdb.sh stop
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
one_at_a_time testdb

mkdir -p "$cache/testdb"
go build -C "$root" -o "$cache/testdb/testdb" ./internal/testkit/testdb
exec 9>&- # the server must not inherit the lock
exec "$cache/testdb/testdb" "${1:?start or stop}" "$cache/testdb" "$cache/postgres"
