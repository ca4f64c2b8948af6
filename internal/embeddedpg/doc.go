// Package embeddedpg runs a real PostgreSQL server as a child of this program, for the local stack and for tests.
//
// The binaries are the ones that the zonky project publishes on Maven Central; their archive is held to a checksum written
// in this package and unpacked once per version. A data directory has this layout:
//
//	<DataDir>/lock          held by the program that runs the server, for as long as it runs it
//	<DataDir>/password      of the superuser, made at random when the cluster is made
//	<DataDir>/port          the port of the last start, asked for again so that addresses survive a restart
//	<DataDir>/postgres.log  what the server said
//	<DataDir>/pgdata/       PostgreSQL's own data directory
//
// Invariants:
//   - One program at a time runs a data directory: Start fails while another holds its lock.
//   - A server outlives a program that was killed. The next Start on that data directory adopts it, under the same port,
//     instead of starting a second one.
//   - A cluster is made under a temporary name and renamed when it is complete, so a killed first start leaves no half cluster.
//     An existing cluster is never removed: one of another major version is an error.
//   - PostgreSQL refuses to run as root. When this program is root, the server runs as the user nobody, which owns the data
//     directory. The server is given that directory as an open descriptor, so it may lie below a folder that nobody cannot
//     pass (/root, say). Binaries that nobody cannot reach are kept in /var/lib/muster/postgres instead.
//
// With Options.Restart a server that dies is started again on the same port, after a delay that grows; after
// maxRestarts failures in a row the server is given up, Done is closed and Err says why.
//
// A Server's methods may be called from several goroutines.
package embeddedpg
