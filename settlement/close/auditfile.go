package close

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/settlement/statements"
)

var auditColumns = []string{"seq", "at", "by", "action", "subject", "details", "previous", "hash"}

// Audit writes the lines of the audit log that a filter lets through. The whole log is checked first, also what the filter leaves out: an
// altered one is an error that names the line. A file that is not the whole log says so in a row before the columns' names, with the
// whole log's length and last hash.
func (s *Service) Audit(ctx context.Context, w io.Writer, filter audit.Filter) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var last audit.Line
		err := audit.Walk(ctx, tx, func(l audit.Line) error {
			last = l
			return nil
		})
		if err != nil {
			return err
		}
		t := table{csv.NewWriter(w)}
		if what := filter.String(); what != "" {
			note := make([]string, len(auditColumns))
			note[0] = fmt.Sprintf("Filtered: only lines with %s. All %d lines of the log were checked, up to the hash %x.", what, last.Seq, last.Hash)
			err = t.Write(note)
		}
		return t.end(errors.Join(err, t.Write(auditColumns), audit.Each(ctx, tx, filter, func(l audit.Line) error { return t.Write(auditRow(l)) })))
	})
}

func auditRow(l audit.Line) []string {
	by := ""
	if !l.By.IsZero() {
		by = l.By.String()
	}
	return []string{
		strconv.FormatInt(l.Seq, 10), l.At.UTC().Format(time.RFC3339Nano), by, l.Action, statements.Cell(l.Subject), statements.Cell(l.Details),
		fmt.Sprintf("%x", l.Previous), fmt.Sprintf("%x", l.Hash),
	}
}
