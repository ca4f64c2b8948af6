package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/benchkit"
)

const (
	peerConnections  = 16 // a transfer each: more do worse, fewer too
	batchConnections = 2
	batchSize        = 1000
)

// The peer is this version of github.com/pgr0ss/pgledger. peerHash is the SHA-256 of its peerFiles, each with a line feed.
const (
	peerCommit = "c18c7d267d46ab396641d5e44f1ce3166aeb9a6d"
	peerHash   = "dd0befdee5fa5ccd706948654bb56525d0f1abc810078d6ebaed7193768fdb34"
)

// peerFiles are pgledger's SQL, in their order.
var peerFiles = []string{
	"vendor/scoville-pgsql-ulid/ulid-to-uuid.sql", "vendor/scoville-pgsql-ulid/uuid-to-ulid.sql", "pgledger.sql",
}

// peer is a database with pgledger and as many accounts, which may go below zero: it has less to refuse. A nil peer is none.
type peer struct {
	database *benchkit.Database
	pool     *pgxpool.Pool // the database's
	accounts []string
}

func newPeer(ctx context.Context, s settings) (p *peer, err error) {
	if s.pgledger == "" {
		note("no ratios without the peer. To have them:\n%s", peerHelp("../pgledger"))
		return nil, nil //nolint:nilnil // there is none
	}
	script, err := readPeer(s.pgledger)
	if err != nil {
		return nil, err
	}
	database, err := benchkit.NewBareDatabase(ctx, "pgledgerbench", connections)
	if err != nil {
		return nil, err
	}
	p = &peer{database: database, pool: database.Pool}
	if err := p.fill(ctx, script, s.accounts); err != nil {
		p.close()
		return nil, fmt.Errorf("set up pgledger: %w", err)
	}
	return p, nil
}

// readPeer is pgledger's SQL, of the one version that figures are compared with.
func readPeer(dir string) (script string, err error) {
	for _, name := range peerFiles {
		sql, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("read pgledger: %w; it is had by\n%s", err, peerHelp(dir))
		}
		script += string(sql) + "\n"
	}
	if hash := fmt.Sprintf("%x", sha256.Sum256([]byte(script))); hash != peerHash {
		return "", fmt.Errorf("%s holds another version of pgledger than the one that figures are compared with, which is had by\n%s", dir, peerHelp(dir))
	}
	return script, nil
}

func peerHelp(dir string) string {
	return fmt.Sprintf("  git clone https://github.com/pgr0ss/pgledger %[1]s && git -C %[1]s checkout %[2]s\n  %[3]s=%[1]s make bench-ledger", dir, peerCommit, peerVariable)
}

func (p *peer) fill(ctx context.Context, script string, accounts int) error {
	note("making %d accounts of pgledger", accounts)
	if _, err := p.pool.Exec(ctx, script); err != nil {
		return err
	}
	err := p.pool.QueryRow(ctx, `
		SELECT array_agg(a.id) FROM generate_series(1, $1::int) AS n, pgledger_create_account('account ' || n, 'USDC') AS a`, accounts).Scan(&p.accounts)
	if err != nil {
		return err
	}
	_, err = p.pool.Exec(ctx, `VACUUM ANALYZE`)
	return err
}

func (p *peer) close() {
	if p == nil {
		return
	}
	if err := p.database.Drop(); err != nil {
		note("%v", err)
	}
}

// flood makes one transfer a transaction.
func (p *peer) flood(ctx context.Context, pair pair, turn time.Duration) (rate float64, err error) {
	return flood(ctx, peerConnections, turn, func(ctx context.Context) (int, error) {
		from, to := pair(len(p.accounts))
		_, err := p.pool.Exec(ctx, `SELECT id FROM pgledger_create_transfer($1, $2, 1)`, p.accounts[from], p.accounts[to])
		return 1, err
	})
}

// floodBatched makes an array of transfers a transaction.
func (p *peer) floodBatched(ctx context.Context, pair pair, turn time.Duration) (rate float64, err error) {
	return flood(ctx, batchConnections, turn, func(ctx context.Context) (int, error) {
		froms, tos := make([]string, batchSize), make([]string, batchSize)
		for i := range batchSize {
			from, to := pair(len(p.accounts))
			froms[i], tos[i] = p.accounts[from], p.accounts[to]
		}
		_, err := p.pool.Exec(ctx, `
			SELECT count(*) FROM pgledger_create_transfers(event_at => NULL, metadata => NULL, transfer_requests =>
				(SELECT array_agg((n.debit, n.credit, 1)::transfer_request) FROM unnest($1::text[], $2::text[]) AS n (debit, credit)))`, froms, tos)
		return batchSize, err
	})
}
