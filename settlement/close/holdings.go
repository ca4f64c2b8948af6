package close

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/money"
)

// maxFrozenHoldings is how many token accounts of foreign tokens a closing lists; it counts all.
const maxFrozenHoldings = 1_000

// HoldingTotals are the token accounts of the platform's wallets that the ledger does not mirror, as they were last seen. Foreign
// tokens are information: no figure has them.
type HoldingTotals struct {
	Settlement int64          `json:"settlement"` // accounts of the platform's own token that hold something; each was explained
	Foreign    int64          `json:"foreign"`    // accounts of other tokens that hold something
	LeftOut    int64          `json:"left_out"`   // accounts of other tokens that were counted and not looked at
	TooMany    int64          `json:"too_many"`   // wallets with more accounts than can be listed
	List       []HoldingTotal `json:"list"`       // the platform's own token first
}

// HoldingTotal is one such account.
type HoldingTotal struct {
	TokenAccount string `json:"token_account"`
	Wallet       string `json:"wallet"`
	Mint         string `json:"mint"`
	Decimals     int    `json:"decimals"`
	Units        string `json:"units"` // base units of that mint
	Settlement   bool   `json:"settlement"`
}

func (s *Service) holdings(ctx context.Context, tx pgx.Tx) (*HoldingTotals, error) {
	var h HoldingTotals
	mint := s.options.Currency.Mint
	err := tx.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE mint = $1), count(*) FILTER (WHERE mint <> $1),
		       (SELECT coalesce(sum(left_out), 0)::bigint FROM holding_wallets), (SELECT count(*) FROM holding_wallets WHERE too_many)
		FROM holdings WHERE amount > 0`, mint).Scan(&h.Settlement, &h.Foreign, &h.LeftOut, &h.TooMany)
	if err != nil {
		return nil, fmt.Errorf("count holdings: %w", err)
	}
	rows, err := tx.Query(ctx, `
		SELECT token_account, wallet, mint, decimals, amount::text, mint = $1 FROM holdings WHERE amount > 0
		ORDER BY mint <> $1, mint, token_account LIMIT $2`, mint, maxFrozenHoldings)
	if err != nil {
		return nil, fmt.Errorf("list holdings: %w", err)
	}
	if h.List, err = pgx.CollectRows(rows, pgx.RowToStructByPos[HoldingTotal]); err != nil {
		return nil, fmt.Errorf("list holdings: %w", err)
	}
	return &h, nil
}

type reportHolding struct{ TokenAccount, Wallet, Mint, Amount string }

// reportHoldings are those of one closing for its page; nil for a month that was closed before they were looked at.
type reportHoldings struct {
	*HoldingTotals
	Own, Others []reportHolding
	More        int64 // that the list leaves out
}

func newReportHoldings(totals *HoldingTotals) *reportHoldings {
	if totals == nil {
		return nil
	}
	page := &reportHoldings{HoldingTotals: totals, More: totals.Settlement + totals.Foreign - int64(len(totals.List))}
	for _, h := range totals.List {
		row := reportHolding{TokenAccount: h.TokenAccount, Wallet: h.Wallet, Mint: h.Mint, Amount: money.Decimal(h.Units, h.Decimals)}
		if h.Settlement {
			page.Own = append(page.Own, row)
		} else {
			page.Others = append(page.Others, row)
		}
	}
	return page
}
