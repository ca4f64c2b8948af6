package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/gagliardetto/solana-go"
)

// Budget is what a message may use, and pays for being taken early.
type Budget struct {
	Units       uint32 // compute units, at least 1
	LoadedData  uint32 // bytes of accounts, in V1 at least 1; the older formats have a generous default, and keep it
	PriorityFee uint64 // lamports for the whole transaction; in the older formats rounded down to a price per unit
}

// Nonce is a durable nonce and the value that the message consumes.
type Nonce struct {
	Account solana.PublicKey
	Value   solana.Hash
}

// Payee is paid once in a message.
type Payee struct {
	Account solana.PublicKey // its token account
	Wallet  solana.PublicKey // its owner; only looked at if the account is to be created
	Amount  uint64           // base units
	Create  bool
}

// Payout pays a batch.
type Payout struct {
	Nonce  Nonce
	Payees []Payee
	Memo   string // none if empty
	Budget Budget
}

// Cancel consumes a nonce and does nothing else, so that no transaction with its value can land any more.
type Cancel struct {
	Nonce  Nonce
	Memo   string // none if empty
	Budget Budget
}

// Sweep moves a deposit into the treasury's token account. The deposit's wallet signs after the treasury.
type Sweep struct {
	Nonce  Nonce
	Wallet solana.PublicKey // owns Source
	Source solana.PublicKey // its token account
	Amount uint64
	Memo   string // none if empty
	Budget Budget
}

// Payout returns the message that pays a batch.
func (t *Treasury) Payout(f Format, p *Payout) ([]byte, error) { return t.AppendPayout(nil, f, p) }

// Cancel returns a message that consumes a nonce.
func (t *Treasury) Cancel(f Format, c *Cancel) ([]byte, error) {
	w, err := t.begin(f, &c.Nonce, c.Memo, c.Budget)
	if err != nil {
		return nil, err
	}
	r := &w.roster
	r.sign(slotTreasury, &t.keys.Treasury)
	r.pin(newEntry(slotNonce, &c.Nonce.Account))
	r.read(t, f, slotSysvar, &sysvar)
	r.invoke(slotSystem, &systemProgram)
	w.common()
	if err := r.close(); err != nil {
		return nil, err
	}
	w.advance()
	w.memo()
	return w.finish(nil)
}

// Sweep returns a message that moves a deposit into the treasury.
func (t *Treasury) Sweep(f Format, s *Sweep) ([]byte, error) {
	w, err := t.begin(f, &s.Nonce, s.Memo, s.Budget)
	if err != nil {
		return nil, err
	}
	if s.Amount == 0 {
		return nil, errors.New("a sweep moves at least one base unit")
	}
	r := &w.roster
	r.sign(slotTreasury, &t.keys.Treasury)
	r.sign(slotWallet, &s.Wallet)
	r.pin(newEntry(slotNonce, &s.Nonce.Account))
	r.write(t, f, slotSource, &s.Source)
	r.write(t, f, slotTarget, &t.keys.TokenAccount)
	r.read(t, f, slotMint, &t.keys.Mint)
	r.read(t, f, slotSysvar, &sysvar)
	r.invoke(slotSystem, &systemProgram)
	r.invoke(slotToken, &t.keys.TokenProgram)
	w.common()
	if err := r.close(); err != nil {
		return nil, err
	}
	w.advance()
	w.transfer(slotSource, slotTarget, slotWallet, s.Amount)
	w.memo()
	return w.finish(nil)
}

// AppendPayout appends the message that pays a batch to dst, which keeps its array if that is large enough.
func (t *Treasury) AppendPayout(dst []byte, f Format, p *Payout) ([]byte, error) {
	w, err := t.begin(f, &p.Nonce, p.Memo, p.Budget)
	if err != nil {
		return nil, err
	}
	creates, err := check(p.Payees)
	if err != nil {
		return nil, err
	}
	r := &w.roster
	r.start(t.shape(f, creates > 0))
	if p.Memo == "" {
		r.drop(slotMemo)
	}
	r.sign(slotTreasury, &t.keys.Treasury)
	r.pin(newEntry(slotNonce, &p.Nonce.Account))
	r.write(t, f, slotSource, &t.keys.TokenAccount)
	for i := range p.Payees {
		r.write(t, f, uint8(slotPayee+i), &p.Payees[i].Account)
		if p.Payees[i].Create {
			r.read(t, f, uint8(slotOwner+i), &p.Payees[i].Wallet)
		}
	}
	load := Load{Payees: len(p.Payees), Creates: creates, Listed: r.payeesListed(), Memo: len(p.Memo)}
	if !t.Fits(f, load) {
		return nil, fmt.Errorf("%w: %d payees, of whom %d need an account, in %s", ErrTooLarge, load.Payees, creates, f)
	}
	if err := r.close(); err != nil {
		return nil, err
	}
	w.advance()
	for i := range p.Payees {
		if p.Payees[i].Create {
			w.create(i)
		}
		w.transfer(slotSource, uint8(slotPayee+i), slotTreasury, p.Payees[i].Amount)
	}
	w.memo()
	return w.finish(dst)
}

func check(payees []Payee) (creates int, err error) {
	if len(payees) == 0 {
		return 0, errors.New("a payout has payees")
	}
	if len(payees) > MaxPayees {
		return 0, fmt.Errorf("%w: %d payees, of at most %d", ErrTooLarge, len(payees), MaxPayees)
	}
	for i := range payees {
		if payees[i].Amount == 0 {
			return 0, fmt.Errorf("%s would be paid nothing", payees[i].Account)
		}
		if payees[i].Create {
			creates++
		}
	}
	return creates, nil
}

func (r *roster) payeesListed() (n int) {
	for _, e := range r.listedWritable[:r.listedWritables] {
		if e.slot >= slotPayee {
			n++
		}
	}
	return n
}

// writer lays out one message: accounts first, then instructions, then the bytes.
type writer struct {
	t      *Treasury
	format Format
	nonce  *Nonce
	text   string
	budget Budget
	roster roster

	heads   [maxTrace]head
	headLen int
	body    [maxBytesV1]byte // each instruction's accounts and data, one after another
	bodyLen int
}

type head struct{ program, accounts, data uint8 }

func (t *Treasury) begin(f Format, nonce *Nonce, memo string, budget Budget) (writer, error) {
	w := writer{t: t, format: f, nonce: nonce, text: memo, budget: budget}
	switch {
	case f > Legacy:
		return w, fmt.Errorf("there is no %s", f)
	case f == V0 && t.table == nil:
		return w, errors.New("a message in v0 needs a lookup table")
	case len(memo) > MaxMemo:
		return w, fmt.Errorf("a memo has at most %d bytes, this has %d", MaxMemo, len(memo))
	case budget.Units == 0 || budget.Units > maxUnits || (f == V1 && budget.LoadedData == 0):
		return w, fmt.Errorf("a budget has 1 to %d units, and in v1 some loaded data", maxUnits)
	}
	return w, nil
}

// common adds the programs that any message may need.
func (w *writer) common() {
	if w.format != V1 {
		w.roster.invoke(slotBudget, &budgetProgram)
	}
	if w.text != "" {
		w.roster.invoke(slotMemo, &memoProgram)
	}
}

func (w *writer) place(slot uint8) uint8 { return w.roster.index[slot] }

// add begins an instruction and returns where its accounts and data go.
func (w *writer) add(program uint8, accounts, data int) []byte {
	w.heads[w.headLen] = head{program: w.place(program), accounts: uint8(accounts), data: uint8(data)}
	w.headLen++
	room := w.body[w.bodyLen : w.bodyLen+accounts+data]
	w.bodyLen += accounts + data
	return room
}

// advance consumes the nonce and, in the older formats, sets the budget.
func (w *writer) advance() {
	room := w.add(slotSystem, 3, 4)
	room[0], room[1], room[2] = w.place(slotNonce), w.place(slotSysvar), w.place(slotTreasury)
	binary.LittleEndian.PutUint32(room[3:], systemAdvanceNonce)
	if w.format == V1 {
		return
	}
	room = w.add(slotBudget, 0, 5)
	room[0] = budgetUnitLimit
	binary.LittleEndian.PutUint32(room[1:], w.budget.Units)
	if w.budget.PriorityFee > 0 {
		room = w.add(slotBudget, 0, 9)
		room[0] = budgetUnitPrice
		binary.LittleEndian.PutUint64(room[1:], UnitPrice(w.budget))
	}
}

// UnitPrice is a budget's fee as micro-lamports per unit, rounded down: the older formats set it so.
func UnitPrice(b Budget) uint64 {
	high, low := bits.Mul64(b.PriorityFee, microLamports)
	if high >= uint64(b.Units) {
		return ^uint64(0)
	}
	price, _ := bits.Div64(high, low, uint64(b.Units))
	return price
}

func (w *writer) create(payee int) {
	room := w.add(slotATA, createAccounts, createData)
	room[0], room[1], room[2] = w.place(slotTreasury), w.place(uint8(slotPayee+payee)), w.place(uint8(slotOwner+payee))
	room[3], room[4], room[5] = w.place(slotMint), w.place(slotSystem), w.place(slotToken)
	room[6] = ataCreateIdempotent
}

func (w *writer) transfer(from, to, authority uint8, amount uint64) {
	room := w.add(slotToken, transferAccounts, transferData)
	room[0], room[1], room[2], room[3] = w.place(from), w.place(slotMint), w.place(to), w.place(authority)
	room[4] = tokenTransferChecked
	binary.LittleEndian.PutUint64(room[5:], amount)
	room[13] = w.t.keys.Decimals
}

func (w *writer) memo() {
	if w.text != "" {
		copy(w.add(slotMemo, 0, len(w.text)), w.text)
	}
}

// finish appends the message's bytes.
func (w *writer) finish(dst []byte) ([]byte, error) {
	if n := w.roster.accounts(); n > maxAccounts {
		return nil, fmt.Errorf("%w: %d accounts", ErrTooLarge, n)
	}
	start := len(dst)
	dst = slices.Grow(dst, w.room())
	if w.format == V1 {
		dst = w.finishV1(dst)
	} else {
		dst = w.finishOld(dst)
	}
	signatures := signatureBytes * w.roster.signersLen
	if w.format != V1 {
		signatures++ // their count
	}
	if len(dst)-start+signatures > limit(w.format) {
		return nil, fmt.Errorf("%w: %d bytes in %s", ErrTooLarge, len(dst)-start+signatures, w.format)
	}
	return dst, nil
}

// room is at least what the message takes.
func (w *writer) room() int {
	const fixed = 160 // header, lifetime, counts, configuration and a table's address
	return fixed + addressBytes*w.roster.statics() + headBytes*w.headLen + w.bodyLen + maxAccounts
}

func (w *writer) header(dst []byte) []byte {
	r := &w.roster
	return append(dst, uint8(r.signersLen), uint8(r.signersLen-1), uint8(r.readonlys))
}

func (w *writer) addresses(dst []byte) []byte {
	r := &w.roster
	for _, list := range [][]entry{r.signers[:r.signersLen], r.writable[:r.writables], r.readonly[:r.readonlys]} {
		for i := range list {
			dst = append(dst, list[i].key[:]...)
		}
	}
	return dst
}

const (
	versionV1 = 0x81
	versionV0 = 0x80
	maskV1    = 0b1111 // priority fee, units and loaded data
)

func (w *writer) finishV1(dst []byte) []byte {
	dst = w.header(append(dst, versionV1))
	dst = binary.LittleEndian.AppendUint32(dst, maskV1)
	dst = append(dst, w.nonce.Value[:]...)
	dst = append(dst, uint8(w.headLen), uint8(w.roster.statics()))
	dst = w.addresses(dst)
	dst = binary.LittleEndian.AppendUint64(dst, w.budget.PriorityFee)
	dst = binary.LittleEndian.AppendUint32(dst, w.budget.Units)
	dst = binary.LittleEndian.AppendUint32(dst, w.budget.LoadedData)
	for _, h := range w.heads[:w.headLen] {
		dst = append(dst, h.program, h.accounts, h.data, 0)
	}
	return append(dst, w.body[:w.bodyLen]...)
}

// finishOld writes legacy and v0. No length in them reaches 128, so each is one byte.
func (w *writer) finishOld(dst []byte) []byte {
	if w.format == V0 {
		dst = append(dst, versionV0)
	}
	dst = w.header(dst)
	dst = append(dst, uint8(w.roster.statics()))
	dst = w.addresses(dst)
	dst = append(dst, w.nonce.Value[:]...)
	dst = append(dst, uint8(w.headLen))
	body := w.body[:w.bodyLen]
	for _, h := range w.heads[:w.headLen] {
		dst = append(dst, h.program, h.accounts)
		dst = append(dst, body[:h.accounts]...)
		dst = append(dst, h.data)
		dst = append(dst, body[h.accounts:h.accounts+h.data]...)
		body = body[h.accounts+h.data:]
	}
	if w.format == V0 {
		dst = w.lookups(dst)
	}
	return dst
}

func (w *writer) lookups(dst []byte) []byte {
	r := &w.roster
	if r.listedWritables+r.listedReadonlys == 0 {
		return append(dst, 0)
	}
	dst = append(append(dst, 1), w.t.table.Address[:]...)
	for _, list := range [][]entry{r.listedWritable[:r.listedWritables], r.listedReadonly[:r.listedReadonlys]} {
		dst = append(dst, uint8(len(list)))
		for i := range list {
			dst = append(dst, list[i].place)
		}
	}
	return dst
}
