package deposits

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// watched is a token account of one of our wallets.
type watched struct {
	account  chain.Address
	wallet   chain.Address
	org      ids.Org // zero: the treasury's
	mint     chain.Address
	program  chain.Address
	decimals int
	cursor   chain.Cursor
}

// poll reads all watched accounts and returns them.
func (s *Service) poll(ctx context.Context, f fence, discover bool) ([]chain.Address, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pollTimeout, errors.New("watch deposits: a poll took longer than "+pollTimeout.String()))
	defer cancel()
	if err := s.judgeMint(ctx); err != nil {
		return nil, err
	}
	var failed error
	if discover {
		failed = s.discover(ctx, f)
	}
	accounts, err := s.watchedAccounts(ctx)
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	addresses, problems := make([]chain.Address, len(accounts)), make([]error, len(accounts)+1)
	problems[len(accounts)] = failed
	group := errgroup.Group{}
	group.SetLimit(pollers)
	for i, account := range accounts {
		addresses[i] = account.account
		group.Go(func() error {
			problems[i] = s.pollAccount(ctx, f, account)
			if account.mint != s.mint && errors.Is(problems[i], chain.ErrHistoryTooLong) {
				s.log.WarnContext(ctx, "an account of a foreign token is too busy to be followed", "token_account", account.account.String())
				problems[i] = nil
			}
			return nil
		})
	}
	_ = group.Wait() // the problems are kept apart, so that one account does not hide the others'
	return addresses, errors.Join(problems...)
}

// harmless are the Token-2022 extensions that only describe a token. All others may keep a part of a transfer, stop it, or let
// somebody take tokens back.
var harmless = []chain.Extension{
	chain.ExtensionMetadataPointer, chain.ExtensionTokenMetadata, chain.ExtensionGroupPointer, chain.ExtensionTokenGroup,
	chain.ExtensionGroupMemberPointer, chain.ExtensionTokenGroupMember,
}

// judgeMint looks at the platform's mint, once: extensions are chosen when a mint is made.
func (s *Service) judgeMint(ctx context.Context) error {
	if s.judged.Load() != nil {
		return nil
	}
	mint, err := s.chain.Mint(ctx, s.mint)
	if err != nil {
		return fmt.Errorf("read the mint %s: %w", s.mint, err)
	}
	problem := ""
	for _, extension := range mint.Extensions {
		if !slices.Contains(harmless, extension) {
			problem = fmt.Sprintf("the token has the extension %d of Token-2022, which is not on the list of those that only describe a token", extension)
			s.log.ErrorContext(ctx, "deposits are not credited", "mint", s.mint, "reason", problem, "alarm", true)
			break
		}
	}
	s.judged.Store(&problem)
	return nil
}

// pollAccount records what arrived at one account since its cursor, and moves the cursor when all of it is recorded.
func (s *Service) pollAccount(ctx context.Context, f fence, w watched) error {
	movements, err := s.chain.Movements(ctx, w.account, w.cursor)
	if err != nil {
		return fmt.Errorf("read token account %s: %w", w.account, err)
	}
	known, err := s.known(ctx, w, movements)
	if err != nil {
		return err
	}
	last := w.cursor
	for _, m := range movements {
		if m.Err == "" && m.Received() > 0 && !known[m.Signature.String()] {
			if err := s.record(ctx, f, w, m); err != nil {
				return fmt.Errorf("record transaction %s at %s: %w", m.Signature, w.account, err)
			}
		}
		last = m.Cursor()
	}
	return s.moveCursor(ctx, f, w, last)
}

// asFound is the account as a movement found it. Who kept the right to close an account before giving it to us can open it again, for
// another token.
func (s *Service) asFound(ctx context.Context, w watched, m chain.Movement) (watched, error) {
	if m.Mint == w.mint {
		return w, nil
	}
	described, err := s.chain.Mints(ctx, m.Mint)
	if err != nil {
		return w, fmt.Errorf("read the mint %s: %w", m.Mint, err)
	}
	w.mint, w.program, w.decimals = m.Mint, m.Program, described[m.Mint].Decimals // a mint that is gone has none
	return w, nil
}

// arrival is a movement with what is to become of it.
type arrival struct {
	watched
	chain.Movement
	id          ids.Deposit
	disposition string
	reason      string
	debit       ledger.Account
	credit      ledger.Account
}

// reasonHandedOver is why tokens that came are not ours to give.
const reasonHandedOver = "the token account belongs to another wallet now"

// judge decides by the facts of the transaction, not by what the account was when it was found.
func (s *Service) judge(w watched, m chain.Movement) arrival {
	a := arrival{watched: w, Movement: m, id: ids.New[ids.Deposit](), disposition: "suspense"}
	a.debit, a.credit = ledger.Platform(ledger.ChainSuspense), ledger.Platform(ledger.Suspense)
	ours := m.Mint == s.mint && m.Program == s.config.TokenProgram
	own, err := chain.AssociatedTokenAccount(w.wallet, s.mint, s.config.TokenProgram)
	switch {
	case !ours:
		a.reason = "it is another token than " + s.ledger.Currency().Symbol
	case *s.judged.Load() != "":
		a.reason = *s.judged.Load()
		if own == w.account && !w.org.IsZero() {
			a.debit = ledger.Of(ledger.ChainDeposits, w.org)
		}
	case m.Owner != w.wallet:
		a.reason = reasonHandedOver
	case err != nil || own != w.account:
		a.reason = "it was sent to another token account than the deposit address's own"
	case w.org.IsZero():
		a.disposition = "capital"
		a.debit, a.credit = ledger.Platform(ledger.ChainTreasury), ledger.Platform(ledger.PlatformCapital)
	case m.Received() < uint64(s.config.Minimum):
		a.reason = fmt.Sprintf("it is less than the minimum of %s %s", s.ledger.Currency().Format(s.config.Minimum), s.ledger.Currency().Symbol)
		a.debit = ledger.Of(ledger.ChainDeposits, w.org)
	default:
		a.disposition = "credited"
		a.debit, a.credit = ledger.Of(ledger.ChainDeposits, w.org), ledger.Of(ledger.CustomerAvailable, w.org)
	}
	return a
}

// record writes an arrival's row and entry, unless another process has.
func (s *Service) record(ctx context.Context, f fence, w watched, m chain.Movement) error {
	w, err := s.asFound(ctx, w, m)
	if err != nil {
		return err
	}
	a, inserted := s.judge(w, m), false
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := f.check(ctx, tx); err != nil {
			return err
		}
		var err error
		if inserted, err = insertDeposit(ctx, tx, a); err != nil || !inserted {
			return err
		}
		return s.book(ctx, tx, a)
	})
	if err == nil && inserted {
		s.arrivals.WithLabelValues(a.disposition).Inc()
	}
	return err
}

// book posts an arrival. Of a foreign token there may be more than the ledger counts, since whoever issues it says how much there is: then
// the deposit's row is all that is kept, and the account's later arrivals are not held up.
func (s *Service) book(ctx context.Context, tx pgx.Tx, a arrival) error {
	err := ledger.ErrUncountable
	if a.Received() <= math.MaxInt64 {
		_, err = s.bookOf(a.watched).Post(ctx, tx, a.entry())
	}
	if errors.Is(err, ledger.ErrUncountable) && a.mint != s.mint {
		s.log.WarnContext(ctx, "a foreign token's amount passes what the ledger holds; only its deposit row is kept", "signature", a.Signature)
		return nil
	}
	return err
}

func (a arrival) entry() ledger.Entry {
	kinds := map[string]string{"credited": ledger.KindDeposit, "suspense": ledger.KindSuspense, "capital": ledger.KindTreasuryFunding}
	memos := map[string]string{"credited": "Deposit", "suspense": "In suspense: " + a.reason, "capital": "Tokens of the platform's own"}
	return ledger.Entry{
		Key:  "deposit:" + a.Signature.String() + ":" + a.account.String(),
		Kind: kinds[a.disposition],
		Legs: []ledger.Leg{{Debit: a.debit, Credit: a.credit, Amount: money.Amount(a.Received())}},
		Refs: ledger.Refs{Deposit: a.id, Signature: a.Signature.String()},
		Memo: memos[a.disposition],
	}
}

// bookOf is the ledger of an account's mint.
func (s *Service) bookOf(w watched) *ledger.Ledger {
	if w.mint == s.mint {
		return s.ledger
	}
	mint := w.mint.String()
	return ledger.New(money.Currency{Symbol: mint[:namesPerMint] + "...", Mint: mint, Decimals: w.decimals})
}

// discover begins to watch what is new: token accounts that anybody may have opened for one of our wallets.
func (s *Service) discover(ctx context.Context, f fence) error {
	wallets, err := s.wallets(ctx)
	if err != nil {
		return err
	}
	known, err := s.watchedAccounts(ctx)
	if err != nil {
		return err
	}
	seen, foreign := make(map[chain.Address]bool, len(known)), map[chain.Address]int{}
	for _, w := range known {
		seen[w.account] = true
		if w.mint != s.mint {
			foreign[w.wallet]++
		}
	}
	var failed error
	for wallet, org := range wallets {
		accounts, err := s.accountsOf(ctx, wallet)
		if errors.Is(err, chain.ErrTooLong) { // reconciliation has it as a difference; what is watched already is followed all the same
			s.log.WarnContext(ctx, "a wallet has more accounts of our token than can be read", "wallet", wallet.String())
			continue
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("list the token accounts of %s: %w", wallet, err))
			continue
		}
		found := slices.DeleteFunc(accounts, func(a chain.TokenAccount) bool {
			if seen[a.Address] || a.Mint == s.mint {
				return seen[a.Address]
			}
			foreign[wallet]++
			return foreign[wallet] > maxForeign
		})
		failed = errors.Join(failed, s.discovered(ctx, f, found, org))
	}
	return failed
}

// accountsOf lists a wallet's token accounts, and where somebody has opened more than can be read those of the platform's token.
func (s *Service) accountsOf(ctx context.Context, wallet chain.Address) ([]chain.TokenAccount, error) {
	accounts, err := s.chain.TokenAccounts(ctx, wallet)
	if errors.Is(err, chain.ErrTooLong) {
		accounts, _, err = s.chain.TokenAccountsOf(ctx, wallet, s.mint)
	}
	return accounts, err
}

// discovered begins to watch new accounts of a wallet. One whose mint is no more can hold nothing and is left alone.
func (s *Service) discovered(ctx context.Context, f fence, accounts []chain.TokenAccount, org ids.Org) error {
	if len(accounts) == 0 {
		return nil
	}
	mints := make([]chain.Address, len(accounts))
	for i, account := range accounts {
		mints[i] = account.Mint
	}
	described, err := s.chain.Mints(ctx, mints...)
	if err != nil {
		return fmt.Errorf("read the mints of %d token accounts: %w", len(accounts), err)
	}
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := f.check(ctx, tx); err != nil {
			return err
		}
		for _, account := range accounts {
			mint, exists := described[account.Mint]
			if !exists {
				continue
			}
			err := watch(ctx, tx, watched{
				account: account.Address, wallet: account.Owner, org: org, mint: account.Mint, program: account.Program, decimals: mint.Decimals,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
