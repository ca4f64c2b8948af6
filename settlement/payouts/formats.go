package payouts

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

// formatMemory is how long a format that the chain has refused is not tried again.
const formatMemory = 10 * time.Minute

// formats remembers which formats the chain accepts. The zero value has tried none; it is safe for concurrent use.
type formats struct {
	mu      sync.Mutex
	refused [txn.Legacy + 1]time.Time
}

// usable are the formats to try, the cheapest first. Legacy is always among them: there is nothing after it.
func (f *formats) usable(now time.Time, table bool) []txn.Format {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []txn.Format
	for _, format := range []txn.Format{txn.V1, txn.V0} {
		rested := f.refused[format].IsZero() || now.Sub(f.refused[format]) >= formatMemory
		if rested && (format != txn.V0 || table) {
			list = append(list, format)
		}
	}
	return append(list, txn.Legacy)
}

func (f *formats) refuse(format txn.Format, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[format] = now
}

// refusesFormat tells a chain that does not take a format from one that refuses what the transaction does. Endpoints that do
// not know a version answer that the parameters are invalid; those that know but do not run it, with an error of the
// transaction. A lookup table that is gone or too short is a reason to do without it.
func refusesFormat(format txn.Format, err error) bool {
	if format == txn.Legacy {
		return false
	}
	var refused *chain.RPCError
	var trial *trialError
	switch {
	case errors.As(err, &refused):
		return refused.Code == codeInvalidParams
	case errors.As(err, &trial):
		return strings.Contains(trial.reason, "UnsupportedVersion") ||
			(format == txn.V0 && strings.Contains(trial.reason, "AddressLookupTable")) ||
			(format == txn.V0 && strings.Contains(trial.reason, "InvalidAddressTable"))
	default:
		return false
	}
}

const codeInvalidParams = -32602

// treasury lays out the messages of the signer's treasury. It is kept for as long as the signer's answer is the same.
func (s *Service) treasury(keys signer.Addresses) (*txn.Treasury, error) {
	wanted := txn.Keys{
		Treasury: keys.Treasury, TokenAccount: keys.TreasuryTokenAccount, Mint: keys.Mint, TokenProgram: keys.TokenProgram, Decimals: keys.Decimals,
	}
	var table *txn.Table
	if keys.LookupTable != nil {
		table = &txn.Table{Address: keys.LookupTable.Address, Addresses: keys.LookupTable.Addresses}
	}
	s.layout.mu.Lock()
	defer s.layout.mu.Unlock()
	if s.layout.treasury != nil && s.layout.keys == wanted && s.layout.sameTable(table) {
		return s.layout.treasury, nil
	}
	made, err := txn.New(wanted, table)
	if err != nil {
		return nil, err
	}
	s.layout.treasury, s.layout.keys, s.layout.table = made, wanted, table
	return made, nil
}

// capacity is that of the format which the next batch will be tried in first.
func (s *Service) capacity(keys signer.Addresses) (capacity, error) {
	treasury, err := s.treasury(keys)
	if err != nil {
		return capacity{}, err
	}
	return capacity{treasury: treasury, format: s.formats.usable(time.Now(), keys.LookupTable != nil)[0]}, nil
}

// keysMemory is how long the signer's addresses are used without asking again. A signer with another policy refuses what it forbids.
const keysMemory = 5 * time.Second

// recentKeys are the signer's addresses, asked for once for many batches: with a large pool of nonces the answer is long.
func (s *Service) recentKeys(ctx context.Context) (signer.Addresses, error) {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	if time.Now().Before(s.recent.until) {
		return s.recent.keys, nil
	}
	keys, err := s.signer.Addresses(ctx)
	if err == nil {
		s.recent.keys, s.recent.until = keys, time.Now().Add(keysMemory)
	}
	return keys, err
}

// recent is the signer's last answer. It is safe for concurrent use.
type recent struct {
	mu    sync.Mutex
	keys  signer.Addresses
	until time.Time
}

// layout is the messages' layout for the keys that the signer last told.
type layout struct {
	mu       sync.Mutex
	keys     txn.Keys
	table    *txn.Table
	treasury *txn.Treasury
}

func (l *layout) sameTable(table *txn.Table) bool {
	if l.table == nil || table == nil {
		return l.table == table
	}
	return l.table.Address == table.Address && slices.Equal(l.table.Addresses, table.Addresses)
}
