package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// Bounds of a survey. Anybody can open accounts for a wallet of ours and send worthless tokens there.
const (
	// MaxHoldings is how many accounts of foreign tokens are kept of one wallet. Those beyond are counted.
	MaxHoldings = 200

	maxNewHoldings   = 20_000 // in one run, of all wallets
	maxWalletsPerRun = 500    // deposit wallets that a run by the clock asks, beside those that have tokens to be explained
	askers           = 8
)

// Tokens is what a survey of token accounts needs of the chain; *chain.Client is one.
type Tokens interface {
	TokenAccounts(ctx context.Context, owner chain.Address) ([]chain.TokenAccount, error)
	TokenAccountsOf(ctx context.Context, owner, mint chain.Address) ([]chain.TokenAccount, chain.Slot, error)
	Accounts(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, addresses ...chain.Address) ([]*chain.Account, error)
	Mints(ctx context.Context, mints ...chain.Address) (map[chain.Address]chain.Mint, error)
}

// wallet is one of ours, and its token account that the ledger mirrors.
type wallet struct {
	address  chain.Address
	mirrored chain.Address
	urgent   bool // it has tokens that are to be explained
}

// asked is what a wallet has beside its mirrored account.
type asked struct {
	wallet
	kept    []chain.TokenAccount // of our token all of them, of foreign ones so many
	slot    chain.Slot
	leftOut int64
	tooMany bool // more than can be read
	unread  bool // so are those of our token: nothing is known of what the wallet has
}

// survey is what a run learns about the token accounts of our wallets.
type survey struct {
	wallets  int // that we have
	asked    []asked
	decimals map[chain.Address]int
	touched  []difference // mirrored accounts that somebody else has a say in
}

// surveyor makes a survey.
type surveyor struct {
	*Service
	mint  chain.Address
	known map[chain.Address]bool // accounts that were seen before
}

// survey lists the token accounts of our wallets: of all of them if fully, else of the treasury's, of those that have tokens to be
// explained, and of the deposit wallets that were not asked for longest.
func (s *Service) survey(ctx context.Context, fully bool) (out survey, err error) {
	v := surveyor{Service: s}
	if v.mint, err = chain.ParseAddress(s.ledger.Currency().Mint); err != nil {
		return survey{}, err
	}
	wallets, err := s.wallets(ctx)
	if err != nil {
		return survey{}, err
	}
	out.wallets = len(wallets)
	if out.touched, err = s.controls(ctx, wallets); err != nil {
		return survey{}, err
	}
	if !fully {
		wallets = turn(wallets)
	}
	if v.known, err = s.knownHoldings(ctx, wallets); err != nil {
		return survey{}, err
	}
	if out.asked, err = v.ask(ctx, wallets); err != nil {
		return survey{}, err
	}
	v.bound(out.asked)
	out.decimals, err = s.decimals(ctx, out.asked)
	return out, err
}

// turn are the wallets that a run by the clock asks. They come with the treasury's first, then the urgent ones, then those not asked for
// longest.
func turn(wallets []wallet) []wallet {
	calm := slices.IndexFunc(wallets[1:], func(w wallet) bool { return !w.urgent }) + 1
	if calm == 0 {
		return wallets
	}
	return wallets[:min(len(wallets), calm+maxWalletsPerRun)]
}

// ask asks some wallets at once.
func (v surveyor) ask(ctx context.Context, wallets []wallet) ([]asked, error) {
	answers := make([]asked, len(wallets))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(askers)
	for i, w := range wallets {
		group.Go(func() (err error) {
			answers[i], err = v.askWallet(groupCtx, w)
			return err
		})
	}
	return answers, group.Wait()
}

// askWallet lists what a wallet has. Its accounts of our token are read by themselves, so that nobody can bury them under others; under too
// many of our token somebody can, which is a difference then.
func (v surveyor) askWallet(ctx context.Context, w wallet) (asked, error) {
	out := asked{wallet: w}
	ours, slot, err := v.config.Tokens.TokenAccountsOf(ctx, w.address, v.mint)
	if errors.Is(err, chain.ErrTooLong) {
		v.log.WarnContext(ctx, "a wallet has more accounts of our token than can be read", "wallet", w.address.String())
		out.tooMany, out.unread = true, true
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("list the accounts of %s: %w", w.address, err)
	}
	out.slot = slot
	all, err := v.config.Tokens.TokenAccounts(ctx, w.address)
	if errors.Is(err, chain.ErrTooLong) {
		v.log.WarnContext(ctx, "a wallet has more token accounts than can be read: only those of our token are", "wallet", w.address.String())
		out.tooMany, all = true, nil
	} else if err != nil {
		return out, fmt.Errorf("list the accounts of %s: %w", w.address, err)
	}
	foreign := slices.DeleteFunc(all, func(a chain.TokenAccount) bool { return a.Mint == v.mint || v.worthless(a) })
	slices.SortFunc(foreign, func(a, b chain.TokenAccount) int {
		return cmp.Or(cmp.Compare(v.rank(a), v.rank(b)), slices.Compare(a.Address[:], b.Address[:]))
	})
	if excess := len(foreign) - MaxHoldings; excess > 0 {
		out.leftOut, foreign = int64(excess), foreign[:MaxHoldings]
	}
	out.kept = slices.DeleteFunc(ours, func(a chain.TokenAccount) bool { return a.Address == w.mirrored || v.worthless(a) })
	out.kept = append(out.kept, foreign...)
	return out, nil
}

// worthless is an account that holds nothing, and did not when it was seen before.
func (v surveyor) worthless(a chain.TokenAccount) bool { return a.Amount == 0 && !v.known[a.Address] }

// rank has accounts that were seen before come first, so that new ones do not push them out.
func (v surveyor) rank(a chain.TokenAccount) int {
	if v.known[a.Address] {
		return 0
	}
	return 1
}

// bound keeps no more new accounts of foreign tokens than one run stores.
func (v surveyor) bound(answers []asked) {
	fresh := 0
	for i := range answers {
		answers[i].kept = slices.DeleteFunc(answers[i].kept, func(a chain.TokenAccount) bool {
			if a.Mint == v.mint || v.known[a.Address] {
				return false
			}
			if fresh++; fresh <= maxNewHoldings {
				return false
			}
			answers[i].leftOut++
			return true
		})
	}
}

// decimals are those of all mints that were found. A token whose mint is gone counts as one without.
func (s *Service) decimals(ctx context.Context, answers []asked) (map[chain.Address]int, error) {
	needed := map[chain.Address]bool{}
	for _, a := range answers {
		for _, account := range a.kept {
			needed[account.Mint] = true
		}
	}
	decimals, err := s.knownDecimals(ctx, needed)
	if err != nil {
		return nil, err
	}
	var unknown []chain.Address
	for mint := range needed {
		if _, known := decimals[mint]; !known {
			unknown = append(unknown, mint)
		}
	}
	mints, err := s.config.Tokens.Mints(ctx, unknown...)
	if err != nil {
		return nil, fmt.Errorf("read mints: %w", err)
	}
	for address, mint := range mints {
		decimals[address] = mint.Decimals
	}
	return decimals, nil
}

// controls looks at the mirrored accounts themselves: who owns them, and who else may do something with them. What they hold is the
// walk's matter.
func (s *Service) controls(ctx context.Context, wallets []wallet) ([]difference, error) {
	addresses := make([]chain.Address, len(wallets))
	for i, w := range wallets {
		addresses[i] = w.mirrored
	}
	accounts, err := s.config.Tokens.Accounts(ctx, chain.Finalized, 0, addresses...)
	if err != nil {
		return nil, fmt.Errorf("read token accounts: %w", err)
	}
	var found []difference
	for i, account := range accounts {
		if account == nil || account.Owner != chain.TokenProgram && account.Owner != chain.Token2022Program {
			continue // nothing was sent there yet
		}
		token, err := chain.DecodeTokenAccount(account)
		if err != nil {
			return nil, err
		}
		marks := marks(token.Frozen, address(token.Delegate), strconv.FormatUint(token.Delegated, 10), address(token.CloseAuthority))
		if token.Owner != wallets[i].address {
			marks = append([]string{fmt.Sprintf("it belongs to the wallet %s now and not to %s, so that what it holds is not ours", token.Owner, wallets[i].address)}, marks...)
		}
		if len(marks) > 0 {
			found = append(found, difference{
				class: ChainOnly, account: token.Address.String(), chain: new(clamp(token.Amount)),
				text: "the ledger does not know what was done to this account: " + strings.Join(marks, "; "),
			})
		}
	}
	return found, nil
}

// marks say in words what is unusual about an account.
func marks(frozen bool, delegate, delegated, closer string) (marks []string) {
	if frozen {
		marks = append(marks, "the token's issuer has frozen it, so that nothing can be moved out")
	}
	if delegate != "" {
		marks = append(marks, fmt.Sprintf("the wallet %s may take up to %s base units out of it", delegate, delegated))
	}
	if closer != "" {
		marks = append(marks, fmt.Sprintf("the wallet %s may close it once it is empty", closer))
	}
	return marks
}

// clamp is an amount as the ledger counts, or the most that it can.
func clamp(units uint64) money.Amount { return money.Amount(min(units, math.MaxInt64)) }

// address is an address as text; the zero address is none.
func address(a chain.Address) string {
	if a.IsZero() {
		return ""
	}
	return a.String()
}

// programs are the token programs as the schema names them.
var programs = map[chain.Address]string{chain.TokenProgram: "token", chain.Token2022Program: "token_2022"}

// Holding is a token account of one of our wallets beside the mirrored one.
type Holding struct {
	ID             ids.Holding
	Settlement     bool // of the platform's token
	TokenAccount   string
	Wallet         string
	Org            ids.Org // whose deposit wallet it is; zero: the treasury's
	Customer       string
	Mint           string
	Program        string
	Decimals       int
	Amount         string // decimal text, in the account's token
	InSuspense     string // of that, what went into suspense when it came
	Deposits       []ids.Deposit
	Present        bool
	Frozen         bool
	Delegate       string
	CloseAuthority string
	FirstSeen      time.Time
	LastSeen       time.Time
	ChangedAt      *time.Time
	Difference     ids.Difference // zero: there is none
}

// Note says why a holding is not counted, or what is to be done about it.
func (h Holding) Note() string {
	switch {
	case !h.Present:
		return "The wallet does not have this account any more."
	case h.Settlement:
		return "Nothing pays out of this account or sweeps it: move what it holds, or explain it in the difference about it."
	case len(h.Deposits) > 0:
		return "Not counted: another token, which no balance counts. It is in suspense, where it can be held only."
	default:
		return "Not counted: another token, which no balance counts. Anybody can send any token to any wallet."
	}
}

// Survey is how far a run has looked for further token accounts.
type Survey struct {
	Wallets, Asked, Settlement, Foreign int
	LeftOut                             int64
	TooMany                             int
}

// HoldingFilter chooses holdings. Zero fields choose all.
type HoldingFilter struct {
	Kind   string // settlement or foreign
	Before ids.Holding
	Limit  int
}
