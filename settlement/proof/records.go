package proof

import (
	"fmt"
	"math/big"

	"github.com/muster-gpu/muster/internal/money"
)

const msPerHour = 3_600_000

// LeastMS is the least time, in milliseconds, that costs at least charged at a price per GPU-hour.
func LeastMS(price, charged money.Amount) int64 {
	if price <= 0 || charged <= 0 {
		return 0
	}
	product := new(big.Int).Mul(big.NewInt(int64(charged)), big.NewInt(msPerHour))
	whole, rest := product.QuoRem(product, big.NewInt(int64(price)), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	return whole.Int64()
}

// accrued is money.Accrued with what cannot be computed as -1: manifests are strangers' input.
func accrued(price money.Amount, ms int64) money.Amount {
	product := new(big.Int).Mul(big.NewInt(int64(price)), big.NewInt(ms))
	product.Quo(product, big.NewInt(msPerHour))
	if price < 0 || ms < 0 || !product.IsInt64() {
		return -1
	}
	return money.Amount(product.Int64())
}

// CheckRecord holds a record to its own arithmetic. The error says in words what does not fit.
func CheckRecord(r *Record) error {
	switch {
	case r.Price <= 0 || r.FeeBPS < 0 || r.FeeBPS > 10_000 || r.ChargedBefore < 0 || r.FromMS < 0:
		return fmt.Errorf("the record of lease %s has a price, share, charge or time that cannot be", r.Lease)
	case r.ChargedAfter <= r.ChargedBefore || r.ToMS <= r.FromMS:
		return fmt.Errorf("the record of lease %s charges nothing: from %d to %d ms, from %d to %d base units",
			r.Lease, r.FromMS, r.ToMS, r.ChargedBefore, r.ChargedAfter)
	}
	for _, end := range []struct {
		ms      int64
		charged money.Amount
	}{{r.FromMS, r.ChargedBefore}, {r.ToMS, r.ChargedAfter}} {
		most := accrued(r.Price, end.ms)
		if end.charged > most || (end.ms > 0 && end.charged <= accrued(r.Price, end.ms-1)) {
			return fmt.Errorf("the record of lease %s says %d base units for %d ms at %d an hour, which cost %d",
				r.Lease, end.charged, end.ms, r.Price, most)
		}
	}
	due := net(r.ChargedAfter, r.FeeBPS) - net(r.ChargedBefore, r.FeeBPS)
	if r.Amount != due {
		return fmt.Errorf("the record of lease %s pays %d base units, its charges leave %d for the owner", r.Lease, r.Amount, due)
	}
	return nil
}

// net is what is left for the owner of a charge.
func net(charged money.Amount, feeBPS int) money.Amount {
	return charged - money.Share(charged, feeBPS)
}

// CheckSum holds a payout's amount to its records and adjustments. Only earnings have any.
func CheckSum(p *Payout) error {
	if p.Purpose != PurposeEarnings {
		if len(p.Records) > 0 || len(p.Adjustments) > 0 {
			return fmt.Errorf("payout %s is a %s and lists usage", p.ID, p.Purpose)
		}
		return nil
	}
	sum := new(big.Int)
	for i := range p.Records {
		sum.Add(sum, big.NewInt(int64(p.Records[i].Amount)))
	}
	for i := range p.Adjustments {
		sum.Add(sum, big.NewInt(int64(p.Adjustments[i].Amount)))
	}
	if sum.Cmp(big.NewInt(int64(p.Amount))) != 0 {
		return fmt.Errorf("payout %s is of %d base units, its records and adjustments come to %s", p.ID, p.Amount, sum)
	}
	return nil
}
