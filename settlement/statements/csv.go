package statements

import (
	"bytes"
	"encoding/csv"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

const (
	millisecondsPerHour = 3_600_000
	hourDecimals        = 9 // of GPU-hours in files; milliseconds stand beside them, exact
)

// formulaStarts begin a formula in some spreadsheet; the wide ones are what East Asian input gives.
const formulaStarts = "=+-@\t\r\n＝＋－＠"

// Cell is text that no spreadsheet takes for a formula: an apostrophe, which they read as "this is text", comes before what could begin one.
// Quotes, commas and line breaks are encoding/csv's to quote.
func Cell(text string) string {
	if strings.ContainsAny(firstRune(text), formulaStarts) {
		return "'" + text
	}
	return text
}

func firstRune(text string) string {
	for _, r := range text {
		return string(r)
	}
	return ""
}

// Hours writes milliseconds as hours, to nine decimals.
func Hours(ms int64) string {
	return big.NewRat(ms, millisecondsPerHour).FloatString(hourDecimals)
}

// stamp writes a time as files have it.
func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }

// preciseStamp writes a time to the microsecond, as the ledger knows it.
func preciseStamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000000Z") }

// idText is an id, or nothing for the zero one.
func idText[K ids.Kind](id ids.ID[K]) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// sheet writes rows whose columns have names.
type sheet struct {
	columns []string
	buffer  bytes.Buffer
	writer  *csv.Writer
}

func newSheet(columns ...string) *sheet {
	s := &sheet{columns: columns}
	s.writer = csv.NewWriter(&s.buffer)
	s.write(columns)
	return s
}

func (s *sheet) write(cells []string) {
	if err := s.writer.Write(cells); err != nil {
		panic(err) // a buffer takes everything
	}
}

// add writes a row; columns that it does not name stay empty.
func (s *sheet) add(row map[string]string) {
	cells := make([]string, len(s.columns))
	for i, column := range s.columns {
		cells[i] = row[column]
	}
	s.write(cells)
}

func (s *sheet) bytes() []byte {
	s.writer.Flush()
	return s.buffer.Bytes()
}

// signed puts an amount into the column of what came in or of what went out: no cell has a sign.
func (s *Service) signed(row map[string]string, in, out string, amount money.Amount) map[string]string {
	if amount < 0 {
		row[out] = s.currency.Format(-amount)
	} else {
		row[in] = s.currency.Format(amount)
	}
	return row
}

// CSV is a customer's statement as a table: the opening balance, what was charged by lease, what was not and why, each movement, and the
// closing balance. Opening and all of "in" less all of "out" come to closing; holds move nothing into or out of the balance.
func (s *Service) CSV(c Customer) []byte {
	table := newSheet("line", "at", "to", "cluster_id", "cluster", "lease_id", "host_id", "region", "gpu_model", "gpu_ms", "gpu_hours", "price_per_gpu_hour",
		"in", "out", "set_aside", "given_back", "not_charged", "balance", "fault_party", "text", "batch_id", "signature", "currency")
	currency := Cell(s.currency.Symbol)
	table.add(map[string]string{"line": "opening", "at": stamp(c.From), "balance": s.currency.Format(c.Opening.Total()), "text": Cell(c.Name), "currency": currency})
	for _, cluster := range c.Clusters {
		for _, l := range cluster.Leases {
			table.add(map[string]string{
				"line": "usage", "cluster_id": cluster.ID.String(), "cluster": Cell(cluster.Name), "lease_id": l.ID.String(), "host_id": l.Host.String(),
				"region": Cell(l.Region), "gpu_model": Cell(l.GPUModel), "gpu_ms": strconv.FormatInt(l.MS, 10), "gpu_hours": Hours(l.MS),
				"price_per_gpu_hour": s.currency.Format(l.Price), "out": s.currency.Format(l.Charged), "currency": currency,
			})
		}
		for _, credit := range cluster.Credits {
			row := s.creditRow(credit)
			row["cluster_id"], row["cluster"], row["gpu_model"] = cluster.ID.String(), Cell(cluster.Name), Cell(cluster.GPUModel)
			table.add(row)
		}
	}
	for _, m := range c.Movements {
		table.add(s.signed(s.movementRow(m), "in", "out", m.Amount))
	}
	for _, m := range c.Holds {
		table.add(s.signed(s.movementRow(m), "set_aside", "given_back", m.Amount))
	}
	table.add(map[string]string{"line": "closing", "at": stamp(c.To), "balance": s.currency.Format(c.Closing.Total()), "text": Cell(c.Name), "currency": currency})
	return table.bytes()
}

func (s *Service) creditRow(credit Credit) map[string]string {
	return map[string]string{
		"line": "not_delivered", "at": preciseStamp(credit.From), "to": preciseStamp(credit.To), "lease_id": credit.Lease.String(),
		"gpu_ms": strconv.FormatInt(credit.MS, 10), "gpu_hours": Hours(credit.MS), "not_charged": s.currency.Format(credit.Amount),
		"fault_party": Cell(credit.Party), "text": Cell(credit.Reason), "currency": Cell(s.currency.Symbol),
	}
}

func (s *Service) movementRow(m Movement) map[string]string {
	return map[string]string{
		"line": Cell(m.Kind), "at": preciseStamp(m.At), "cluster_id": idText(m.Cluster), "batch_id": idText(m.Batch), "text": Cell(m.Text),
		"signature": Cell(m.Signature), "currency": Cell(s.currency.Symbol),
	}
}

// OwnerCSV is an owner's statement as a table. Opening, all of "net" and "in" less all of "out" come to closing, which counts what is in
// payouts that are not final; "into_payout" and "back" move within it.
func (s *Service) OwnerCSV(o Owner) []byte {
	table := newSheet("line", "at", "to", "host_id", "host", "lease_id", "gpu_model", "gpu_ms", "gpu_hours", "price_per_gpu_hour", "fee_bps", "gross", "fee", "net",
		"in", "out", "into_payout", "back", "not_charged", "balance", "fault_party", "text", "batch_id", "signature", "currency")
	currency := Cell(s.currency.Symbol)
	table.add(map[string]string{"line": "opening", "at": stamp(o.From), "balance": s.currency.Format(o.Opening.Total()), "text": Cell(o.Name), "currency": currency})
	for _, host := range o.Hosts {
		for _, l := range host.Leases {
			table.add(map[string]string{
				"line": "earned", "host_id": host.ID.String(), "host": Cell(host.Name), "lease_id": l.ID.String(), "gpu_model": Cell(l.GPUModel),
				"gpu_ms": strconv.FormatInt(l.MS, 10), "gpu_hours": Hours(l.MS), "price_per_gpu_hour": s.currency.Format(l.Price),
				"fee_bps": strconv.Itoa(l.FeeBps), "gross": s.currency.Format(l.Charged), "fee": s.currency.Format(l.Fee),
				"net": s.currency.Format(l.Net()), "currency": currency,
			})
		}
		for _, credit := range host.Credits {
			row := s.creditRow(credit)
			row["host_id"], row["host"] = host.ID.String(), Cell(host.Name)
			table.add(row)
		}
	}
	for _, m := range o.Payouts {
		row := s.movementRow(m)
		row[payoutColumn(m.Kind)] = s.currency.Format(m.Amount)
		table.add(row)
	}
	for _, m := range o.Movements {
		table.add(s.signed(s.movementRow(m), "in", "out", m.Amount))
	}
	table.add(map[string]string{"line": "closing", "at": stamp(o.To), "balance": s.currency.Format(o.Closing.Total()), "text": Cell(o.Name), "currency": currency})
	return table.bytes()
}
