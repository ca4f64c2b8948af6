package statements

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// balances are those of an organisation's accounts around a period.
type balances struct{ opening, closing map[ledger.Kind]money.Amount }

// justBefore is the last moment that the ledger tells from a later one.
func justBefore(at time.Time) time.Time { return at.Add(-time.Microsecond) }

// readBalances reads what the ledger's own transfers left in the accounts.
func (s *Service) readBalances(ctx context.Context, tx pgx.Tx, h Head, kinds ...ledger.Kind) (balances, error) {
	b := balances{opening: map[ledger.Kind]money.Amount{}, closing: map[ledger.Kind]money.Amount{}}
	rows, err := tx.Query(ctx, `
		WITH mine AS MATERIALIZED (
			SELECT id, kind, ledger_seq_at(id, $4) AS first, ledger_seq_at(id, $5) AS last
			FROM ledger_accounts WHERE org_id = $1 AND mint = $2 AND kind = ANY ($3)
		), balances AS (
			SELECT t.debit_account AS id, t.debit_seq AS seq, t.debit_balance AS balance
			FROM mine a JOIN ledger_transfers t ON t.debit_account = a.id AND t.debit_seq IN (a.first, a.last)
			UNION ALL
			SELECT t.credit_account, t.credit_seq, t.credit_balance
			FROM mine a JOIN ledger_transfers t ON t.credit_account = a.id AND t.credit_seq IN (a.first, a.last)
		)
		SELECT a.kind, coalesce(o.balance, 0), coalesce(c.balance, 0)
		FROM mine a
		LEFT JOIN balances o ON (o.id, o.seq) = (a.id, a.first)
		LEFT JOIN balances c ON (c.id, c.seq) = (a.id, a.last)`, h.Org, s.currency.Mint, kinds, justBefore(h.From), justBefore(h.To))
	if err != nil {
		return b, fmt.Errorf("read balances: %w", err)
	}
	var kind ledger.Kind
	var opening, closing money.Amount
	_, err = pgx.ForEachRow(rows, []any{&kind, &opening, &closing}, func() error {
		b.opening[kind], b.closing[kind] = opening, closing
		return nil
	})
	if err != nil {
		return b, fmt.Errorf("read balances: %w", err)
	}
	return b, nil
}

// transfer is a movement as the ledger has it.
type transfer struct {
	Movement
	account, other ledger.Kind
	entry          string // the entry's kind
	memo           string
	key            string // the entry's, which names a withdrawal
	cluster        string // its name, which only the customer is told
}

// readTransfers lists what moved on one account of an organisation in a period, oldest first, but for charges: a posting a second,
// which lease_days adds up.
func (s *Service) readTransfers(ctx context.Context, tx pgx.Tx, h Head, kind ledger.Kind) ([]transfer, error) {
	rows, err := tx.Query(ctx, `
		WITH mine AS MATERIALIZED (
			SELECT id, kind, ledger_seq_at(id, $4) AS first, ledger_seq_at(id, $5) AS last
			FROM ledger_accounts WHERE org_id = $1 AND mint = $2 AND kind = $3
		), sides AS (
			SELECT t.id, t.entry_id, t.posted_at, t.debit_seq AS seq, a.kind AS account, t.credit_account AS other, -t.amount AS change
			FROM mine a JOIN ledger_transfers t ON t.debit_account = a.id AND t.debit_seq > a.first AND t.debit_seq <= a.last
			UNION ALL
			SELECT t.id, t.entry_id, t.posted_at, t.credit_seq, a.kind, t.debit_account, t.amount
			FROM mine a JOIN ledger_transfers t ON t.credit_account = a.id AND t.credit_seq > a.first AND t.credit_seq <= a.last
		)
		SELECT s.id, s.posted_at, s.account, o.kind, s.change, e.kind, e.memo, c.id, coalesce(c.name, ''), e.batch_id, coalesce(e.signature, ''), e.key
		FROM sides s
		JOIN ledger_accounts o ON o.id = s.other
			AND NOT (s.account = 'customer_held' AND o.kind IN ('owner_payable', 'platform_fees') AND s.change < 0)
			AND NOT (s.account = 'owner_payable' AND o.kind = 'customer_held' AND s.change > 0)
		JOIN ledger_entries e ON e.id = s.entry_id
		LEFT JOIN bookings b ON b.id = e.booking_id
		LEFT JOIN clusters c ON c.id = coalesce(e.cluster_id, b.target_cluster_id, (SELECT id FROM clusters WHERE booking_id = e.booking_id))
		ORDER BY s.seq LIMIT $6`, h.Org, s.currency.Mint, kind, justBefore(h.From), justBefore(h.To), MaxLines+1)
	if err != nil {
		return nil, fmt.Errorf("read movements: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (transfer, error) {
		var t transfer
		err := row.Scan(&t.ID, &t.At, &t.account, &t.other, &t.Amount, &t.entry, &t.memo, &t.Cluster, &t.cluster, &t.Batch, &t.Signature, &t.key)
		t.At, t.Kind = t.At.UTC(), t.entry
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read movements: %w", err)
	}
	if len(list) > MaxLines {
		return nil, tooMuch("movements")
	}
	return list, payWithdrawals(ctx, tx, h.Org, list)
}

// withdrawalKey begins the key of the entry that takes a withdrawal out of a balance.
const withdrawalKey = "withdrawal:"

// payWithdrawals ties withdrawals to the batch that has paid them: it is made after their entry, and the ledger changes no entry.
func payWithdrawals(ctx context.Context, tx pgx.Tx, org ids.Org, list []transfer) error {
	at := make(map[ids.Withdrawal]*transfer)
	wanted := make([]ids.Withdrawal, 0)
	for i := range list {
		text, is := strings.CutPrefix(list[i].key, withdrawalKey)
		if !is {
			continue
		}
		var id ids.Withdrawal
		if err := id.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("read the withdrawal of %s: %w", list[i].key, err)
		}
		at[id], wanted = &list[i], append(wanted, id)
	}
	if len(wanted) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `
		SELECT p.withdrawal_id, b.id, coalesce(b.paid_by, t.signature, '')
		FROM payouts p JOIN payout_batches b ON b.id = p.batch_id LEFT JOIN payout_transactions t ON t.batch_id = b.id
		WHERE p.payee_org_id = $1 AND p.withdrawal_id = ANY ($2) AND b.state = 'finalized'`, org, wanted)
	if err != nil {
		return fmt.Errorf("read what paid withdrawals: %w", err)
	}
	var id ids.Withdrawal
	var batch ids.Batch
	var signature string
	if _, err := pgx.ForEachRow(rows, []any{&id, &batch, &signature}, func() error {
		at[id].Batch, at[id].Signature = batch, signature
		return nil
	}); err != nil {
		return fmt.Errorf("read what paid withdrawals: %w", err)
	}
	return nil
}

// party chooses whose leases are read.
type party string

const (
	asCustomer party = "customer_org_id"
	asOwner    party = "owner_org_id"
)

// readLeases lists what each lease was charged in a period, by cluster for customers and by host for owners.
func readLeases(ctx context.Context, tx pgx.Tx, h Head, as party) ([]Lease, error) {
	order := "l.cluster_id, l.id"
	if as == asOwner {
		order = "h.name, h.id, l.id"
	}
	rows, err := tx.Query(ctx, `
		WITH days AS (
			SELECT lease_id, sum(billed_ms)::bigint AS ms, sum(charged)::bigint AS charged, sum(fee)::bigint AS fee, count(*) AS days
			FROM lease_days WHERE `+string(as)+` = $1 AND day >= $2 AND day < $3 GROUP BY lease_id
		)
		SELECT l.id, l.cluster_id, c.name, l.host_id, h.name, h.region, g.model, l.price_per_gpu_hour, l.fee_bps, d.ms, d.charged, d.fee, d.days
		FROM days d
		JOIN leases l ON l.id = d.lease_id
		JOIN clusters c ON c.id = l.cluster_id
		JOIN hosts h ON h.id = l.host_id
		JOIN gpus g ON g.id = l.gpu_id
		ORDER BY `+order+` LIMIT $4`, h.Org, h.From, h.To, MaxLines+1)
	if err != nil {
		return nil, fmt.Errorf("read charges: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lease])
	if err != nil {
		return nil, fmt.Errorf("read charges: %w", err)
	}
	if len(list) > MaxLines {
		return nil, tooMuch("leases")
	}
	return list, nil
}

// readCredits finds what was not delivered, by lease.
func readCredits(ctx context.Context, tx pgx.Tx, h Head, as party) (list []placed, err error) {
	histories, err := readHistories(ctx, tx, h, as)
	if err != nil || len(histories) == 0 {
		return nil, err
	}
	timelines, err := readTimelines(ctx, tx, histories)
	if err != nil {
		return nil, err
	}
	for _, l := range histories {
		for _, credit := range l.credits(timelines[l.cluster], span{h.From, h.To}, h.Made) {
			list = append(list, placed{credit, l.cluster, l.host})
		}
	}
	return list, nil
}

// placed is a credit with where it belongs.
type placed struct {
	Credit
	cluster ids.Cluster
	host    ids.Host
}

// readHistories reads the leases of those clusters that were not always what had been booked.
func readHistories(ctx context.Context, tx pgx.Tx, h Head, as party) ([]leaseHistory, error) {
	rows, err := tx.Query(ctx, `
		SELECT l.id, l.cluster_id, l.host_id, l.price_per_gpu_hour, l.opened_at, l.closed_at, coalesce(l.close_party, ''), coalesce(l.close_reason, ''),
		       u.started_at, coalesce(u.ended_at, u.confirmed_at)
		FROM leases l
		JOIN clusters c ON c.id = l.cluster_id
		LEFT JOIN usage u ON u.lease_id = l.id
		WHERE l.`+string(as)+` = $1 AND c.created_at < $3 AND (c.ended_at IS NULL OR c.ended_at >= $2)
		  AND l.opened_at < $3 AND (l.closed_at IS NULL OR l.closed_at >= $2)
		  AND (l.close_party IN ('owner', 'platform')
		       OR EXISTS (SELECT 1 FROM cluster_events e WHERE e.cluster_id = c.id AND e.state = 'degraded'))
		ORDER BY l.cluster_id, l.id, u.started_at LIMIT $4`, h.Org, h.From, h.To, MaxLines+1)
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	var list []leaseHistory
	var l leaseHistory
	var from, to *time.Time
	read := 0
	_, err = pgx.ForEachRow(rows, []any{
		&l.id, &l.cluster, &l.host, &l.price, &l.opened, &l.closed, &l.closeParty, &l.closeReason, &from, &to,
	}, func() error {
		read++
		if len(list) == 0 || list[len(list)-1].id != l.id {
			list = append(list, l)
		}
		if last := &list[len(list)-1]; from != nil && to != nil {
			last.usage = append(last.usage, span{*from, *to})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read usage: %w", err)
	}
	if read > MaxLines {
		return nil, tooMuch("pieces of usage")
	}
	return list, nil
}

func readTimelines(ctx context.Context, tx pgx.Tx, histories []leaseHistory) (map[ids.Cluster][]happening, error) {
	timelines := make(map[ids.Cluster][]happening)
	var clusters []string
	for _, l := range histories {
		if _, known := timelines[l.cluster]; !known {
			timelines[l.cluster], clusters = nil, append(clusters, uuidText(l.cluster))
		}
	}
	rows, err := tx.Query(ctx, `
		SELECT cluster_id, at, coalesce(state, ''), coalesce(fault_party, ''), message FROM cluster_events
		WHERE cluster_id = ANY ($1::uuid[]) AND (kind = 'state' OR fault_party IS NOT NULL)
		ORDER BY cluster_id, seq`, clusters)
	if err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	var cluster ids.Cluster
	var h happening
	_, err = pgx.ForEachRow(rows, []any{&cluster, &h.at, &h.state, &h.party, &h.message}, func() error {
		timelines[cluster] = append(timelines[cluster], h)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read timelines: %w", err)
	}
	return timelines, nil
}
