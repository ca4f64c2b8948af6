package api

import (
	"encoding/json"
	"strconv"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// money writes an amount for people and for programs.
func (s *Server) money(a money.Amount) apiv1.Money { return moneyIn(s.Currency, a) }

func moneyIn(c money.Currency, a money.Amount) apiv1.Money {
	return apiv1.Money{BaseUnits: strconv.FormatInt(int64(a), 10), Text: c.Format(a), Currency: c.Symbol, Decimals: c.Decimals}
}

// moneyIf is nil for nothing, where nothing means that there is none.
func (s *Server) moneyIf(a money.Amount) *apiv1.Money {
	if a == 0 {
		return nil
	}
	wire := s.money(a)
	return &wire
}

// amount reads decimal text of a request's body.
func (s *Server) amount(path, text string) (money.Amount, error) {
	a, err := s.Currency.Parse(text)
	if err != nil {
		return 0, errs.InvalidField(path, "%s", err.Error())
	}
	return a, nil
}

// wireDetails turns the domain's details of an error into the documented form.
func (s *Server) wireDetails(details any) any {
	switch d := details.(type) {
	case market.NoMatch:
		return s.wireExplanation(d.Explanation, d.Changes)
	case placement.Explanation:
		return s.wireExplanation(d, nil)
	case ledger.Shortfall:
		return s.wireShortfall(d)
	case json.RawMessage:
		// A refusal that was stored with its booking.
		var shortfall ledger.Shortfall
		if json.Unmarshal(d, &shortfall) == nil && shortfall.Needed > 0 {
			return s.wireShortfall(shortfall)
		}
		var none market.NoMatch
		if json.Unmarshal(d, &none) == nil && len(none.Funnel) > 0 {
			return s.wireExplanation(none.Explanation, none.Changes)
		}
	}
	return nil
}

func (s *Server) wireShortfall(d ledger.Shortfall) apiv1.Shortfall {
	return apiv1.Shortfall{Needed: s.money(d.Needed), Available: s.money(d.Available), Short: s.money(d.Short)}
}

// optional is nil for the zero id.
func optional[K ids.Kind](id ids.ID[K]) *ids.ID[K] {
	if id.IsZero() {
		return nil
	}
	return &id
}

func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
