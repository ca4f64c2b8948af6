package ledger

import (
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// reflected is an entry in the words of encoding/json, which made the hashes that are on record.
func reflected(e Entry, mint string) ([]byte, error) {
	type side struct {
		Kind Kind    `json:"kind"`
		Org  ids.Org `json:"org,omitzero"`
	}
	type leg struct {
		Debit  side         `json:"debit"`
		Credit side         `json:"credit"`
		Amount money.Amount `json:"amount"`
	}
	type pend struct {
		TTL int64 `json:"ttl_ms"`
	}
	type settle struct {
		Pending ids.Entry    `json:"pending"`
		Amount  money.Amount `json:"amount"`
		Expire  bool         `json:"expire"`
	}
	content := struct {
		Kind   string  `json:"kind"`
		Mint   string  `json:"mint"`
		Legs   []leg   `json:"legs"`
		Refs   Refs    `json:"refs"`
		Memo   string  `json:"memo"`
		Pend   *pend   `json:"pend,omitempty"`
		Settle *settle `json:"settle,omitempty"`
	}{Kind: e.Kind, Mint: mint, Legs: make([]leg, len(e.Legs)), Refs: e.Refs, Memo: e.Memo}
	for i, l := range e.Legs {
		content.Legs[i] = leg{Debit: side(l.Debit), Credit: side(l.Credit), Amount: l.Amount}
	}
	if e.Pend != nil {
		content.Pend = &pend{TTL: e.Pend.TTL.Milliseconds()}
	}
	if e.Settle != nil {
		content.Settle = &settle{Pending: e.Settle.Pending, Amount: e.Settle.Amount, Expire: e.Settle.expire}
	}
	return json.Marshal(content)
}

func drawID[I ~[16]byte](t *rapid.T, name string) (id I) {
	if rapid.Bool().Draw(t, "with "+name) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
	}
	return id
}

func drawEntry(t *rapid.T) Entry {
	account := rapid.Custom(func(t *rapid.T) Account {
		return Account{Kind: Kind(rapid.String().Draw(t, "kind")), Org: drawID[ids.Org](t, "org")}
	})
	e := Entry{
		Kind: rapid.String().Draw(t, "kind"),
		Legs: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Leg {
			return Leg{Debit: account.Draw(t, "debit"), Credit: account.Draw(t, "credit"), Amount: money.Amount(rapid.Int64().Draw(t, "amount"))}
		}), 0, 3).Draw(t, "legs"),
		Refs: Refs{
			Booking: drawID[ids.Booking](t, "booking"), Cluster: drawID[ids.Cluster](t, "cluster"), Lease: drawID[ids.Lease](t, "lease"),
			Deposit: drawID[ids.Deposit](t, "deposit"), Batch: drawID[ids.Batch](t, "batch"), Signature: rapid.String().Draw(t, "signature"),
		},
		Memo: rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]{0,40}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string {
			return string(b)
		})).Draw(t, "memo"),
	}
	if rapid.Bool().Draw(t, "pends") {
		e.Pend = &Pend{TTL: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "ttl")) * time.Millisecond / 1000}
	}
	if rapid.Bool().Draw(t, "settles") {
		e.Settle = &Settle{
			Pending: drawID[ids.Entry](t, "pending"), Amount: money.Amount(rapid.Int64().Draw(t, "settled")), expire: rapid.Bool().Draw(t, "expire"),
		}
	}
	return e
}

func TestHashesStayThoseOnRecord(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, mint := drawEntry(t), rapid.String().Draw(t, "mint")
		want, err := reflected(e, mint)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(e.canonical(nil, mint)); got != string(want) {
			t.Fatalf("hashed is\n%s\non record is\n%s", got, want)
		}
	})
}

func TestHashOfAnEntryOnRecord(t *testing.T) {
	t.Parallel()
	e := Entry{
		Key: "known", Kind: KindHold, Memo: `Held for <a> "booking" & more`,
		Legs: []Leg{{Debit: Of(CustomerAvailable, ids.Org{1}), Credit: Of(CustomerHeld, ids.Org{1}), Amount: 5_000_000}},
		Refs: Refs{Booking: ids.Booking{2}, Signature: "5sig"},
	}
	if got := hex.EncodeToString(e.hash("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")); got != "217026c986d081dfd2dfb0cd50f9385218502928ebcfc4b9641ce87d27662ab7" {
		t.Errorf("its hash is %s", got)
	}
}
