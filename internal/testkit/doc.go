// Package testkit is what tests across the packages share: a database of their own, bounded waiting, leak checks and
// printed seeds. Only tests import it.
//
// Databases come from one real PostgreSQL server, found by MUSTER_TEST_DATABASE_URL or started by `make testdb`. A test
// without a server fails; it is never skipped.
package testkit
