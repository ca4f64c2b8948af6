package signer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// A journal that has grown long is made shorter when the signer starts. Records of more than 90 days ago are replaced by how often
// each payee was paid, and by the day that they reach to: ids from before that day, whose time an id carries, are refused
// without knowing whether they were signed. The long journal is kept beside the short one.
const (
	compactAboveBytes = 32 << 20
	journalMemory     = 90 * 24 * time.Hour
	sequencesPerLine  = 800
	archiveTimeFormat = "20060102T150405.000000000Z"
)

// base is the first record of a journal that replaces a longer one.
type base struct {
	Horizon  time.Time `json:"horizon"`         // ids from before are refused
	Replaces []byte    `json:"replaces_sha256"` // the last hash of the journal that was
}

// idTime is when a UUIDv7 was made.
func idTime[I ~[16]byte](id I) time.Time {
	b := [16]byte(id)
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:8]) >> 16))
}

// forgotten refuses ids from before the horizon.
func (j *journal) forgotten(entry *record) *Refusal {
	if j.horizon.IsZero() {
		return nil
	}
	const why = "%s was made before %s, and what was signed then is no longer known"
	day := j.horizon.Format(time.DateOnly)
	if entry.Kind == kindSweep {
		if idTime(entry.Sweep.ID).Before(j.horizon) {
			return refuse(RuleBatchChanged, why, entry.Sweep.ID, day)
		}
		return nil
	}
	if idTime(entry.Batch).Before(j.horizon) {
		return refuse(RuleBatchChanged, why, entry.Batch, day)
	}
	for _, payout := range entry.Payouts {
		if idTime(payout.ID).Before(j.horizon) {
			return refuse(RulePayoutSigned, why, payout.ID, day)
		}
	}
	return nil
}

// compact puts a shorter journal in the place of this one, which is of no more use afterwards.
func (j *journal) compact(dir string, now time.Time) error {
	horizon := now.Add(-journalMemory)
	if horizon.Before(j.horizon) {
		horizon = j.horizon // a clock that was set back brings no memory back
	}
	path := filepath.Join(dir, journalName)
	file, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, privateMode)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // synced before it counts
	short := &journal{file: file}
	if err := errors.Join(lockFile(file), j.copyTo(short, horizon)); err != nil {
		return err
	}
	// The link first: at every moment one of the two journals has the name.
	archive := fmt.Sprintf("%s.until.%s", path, now.UTC().Format(archiveTimeFormat))
	if err := os.Link(path, archive); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(dir)
}

// copyTo writes what a shorter journal keeps.
func (j *journal) copyTo(short *journal, horizon time.Time) error {
	entries := []*record{{At: horizon, Kind: kindBase, Base: &base{Horizon: horizon, Replaces: j.last[:]}}}
	chunk := map[ids.Org]uint64{}
	flush := func() {
		if len(chunk) > 0 {
			entries = append(entries, &record{At: horizon, Kind: kindSequences, Sequences: chunk})
			chunk = map[ids.Org]uint64{}
		}
	}
	for org, sequence := range j.sequence {
		chunk[org] = sequence
		if len(chunk) == sequencesPerLine {
			flush()
		}
	}
	flush()
	kept := &journal{file: j.file}
	err := kept.scan(func(entry *record) {
		if entry.At.After(horizon) && entry.Kind != kindBase && entry.Kind != kindSequences {
			entries = append(entries, entry)
		}
	})
	if err != nil {
		return err
	}
	return short.writeRecords(entries)
}
