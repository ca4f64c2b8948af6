package signer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	journalName    = "journal"
	maxRecordBytes = 64 << 10
	dayWindow      = 24 * time.Hour
)

// Kinds of records. Batches came first, and have none.
const (
	kindBatch  = ""
	kindCancel = "cancel"
	kindSweep  = "sweep"

	kindBase      = "base"      // the first of a shorter journal
	kindSequences = "sequences" // how often payees were paid before it
)

// record is one message that was allowed. Records are only ever appended, each before its message is signed.
type record struct {
	At           time.Time        `json:"at"`
	Kind         string           `json:"kind,omitempty"`
	Batch        ids.Batch        `json:"batch,omitzero"`
	Request      []byte           `json:"request_sha256"`
	NonceAccount solana.PublicKey `json:"nonce_account"`
	NonceValue   solana.Hash      `json:"nonce_value"`
	Total        uint64           `json:"total"`
	Payouts      []Payout         `json:"payouts,omitempty"`
	Sweep        *Sweep           `json:"sweep,omitempty"`

	Base      *base              `json:"base,omitempty"`
	Sequences map[ids.Org]uint64 `json:"sequences,omitempty"`
}

func (r *record) nonce() nonceUse { return nonceUse{r.NonceAccount, r.NonceValue} }

// owner is what the record's nonce value is used for.
func (r *record) owner() string {
	if r.Kind == kindSweep {
		return r.Sweep.ID.String()
	}
	return r.Batch.String()
}

// valid asserts what remember relies on.
func (r *record) valid() bool {
	switch r.Kind {
	case kindBatch, kindCancel:
		return !r.Batch.IsZero()
	case kindSweep:
		return r.Sweep != nil
	case kindBase:
		return r.Base != nil
	case kindSequences:
		return len(r.Sequences) > 0
	default:
		return false
	}
}

type nonceUse struct {
	account solana.PublicKey
	value   solana.Hash
}

// signed is what is known of a batch or sweep that was signed.
type signed struct {
	request []byte
	nonce   nonceUse
}

// journal is the file of records and what they amount to. Its lines are "<sha256> <json>\n", where the hash covers the hash of
// the line before, so that no record can be changed, dropped or moved unseen.
type journal struct {
	file   *os.File
	length int64
	last   [sha256.Size]byte // hash of the last line
	broken error             // set when the file's end is uncertain: nothing is signed any more

	batches  map[ids.Batch]signed
	sweeps   map[ids.Sweep]signed
	cancels  map[nonceUse][][]byte // requests
	nonces   map[nonceUse]string   // the batch or sweep that may consume it
	payouts  map[ids.Payout]ids.Batch
	sequence map[ids.Org]uint64
	recent   []*record // of the last 24 hours, oldest first
	horizon  time.Time // of a journal that was shortened: ids from before are refused
	oldest   time.Time // record
}

// openJournal locks the journal of a directory for this process and replays it, and makes it shorter if it is longer than a limit and
// that would help. A last record that was cut short by a crash was never answered and is dropped; any other damage is an error.
func openJournal(dir string, now time.Time, limit int64) (*journal, error) {
	if err := os.MkdirAll(dir, privateDirMode); err != nil {
		return nil, fmt.Errorf("open signer journal: %w", err)
	}
	j, err := readJournal(dir)
	if err != nil || j.length <= limit || !j.oldest.Before(now.Add(-journalMemory)) {
		return j, err
	}
	err = j.compact(dir, now)
	if err = errors.Join(err, j.close()); err != nil {
		return nil, fmt.Errorf("shorten signer journal: %w", err)
	}
	return readJournal(dir)
}

func readJournal(dir string) (*journal, error) {
	path := filepath.Join(dir, journalName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, privateMode)
	if err != nil {
		return nil, fmt.Errorf("open signer journal: %w", err)
	}
	j := &journal{
		file: file, batches: map[ids.Batch]signed{}, sweeps: map[ids.Sweep]signed{}, cancels: map[nonceUse][][]byte{},
		nonces: map[nonceUse]string{}, payouts: map[ids.Payout]ids.Batch{}, sequence: map[ids.Org]uint64{},
	}
	if err := errors.Join(lockFile(file), syncDir(dir)); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open signer journal %s: %w", path, err)
	}
	if err := j.replay(); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("signer journal %s: %w", path, err)
	}
	return j, nil
}

func lockFile(file *os.File) error {
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another signer holds it: %w", err)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }

func (j *journal) replay() error {
	err := j.scan(func(entry *record) { j.remember(entry) })
	if err != nil {
		return err
	}
	info, err := j.file.Stat()
	if err != nil {
		return err
	}
	return j.dropTail(info.Size() - j.length)
}

// scan reads the whole records from the file's start, and leaves length and last as they are behind them.
func (j *journal) scan(each func(entry *record)) error {
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(j.file, maxRecordBytes)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("record %d: %w", number, err)
		}
		entry, hash, err := j.decode(line)
		if err != nil {
			return fmt.Errorf("record %d is damaged: %w; restore the journal from a copy, nothing is signed until then", number, err)
		}
		j.length += int64(len(line))
		j.last = hash
		each(entry)
	}
}

// dropTail removes an unfinished last line.
func (j *journal) dropTail(tail int64) error {
	if tail > 0 {
		if err := errors.Join(j.file.Truncate(j.length), j.file.Sync()); err != nil {
			return fmt.Errorf("drop the unfinished last record: %w", err)
		}
	}
	return nil
}

func (j *journal) decode(line []byte) (*record, [sha256.Size]byte, error) {
	sum, text, found := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	hash := chain(j.last, text)
	if !found || string(sum) != hex.EncodeToString(hash[:]) {
		return nil, hash, errors.New("its hash does not match")
	}
	var entry record
	if err := json.Unmarshal(text, &entry); err != nil {
		return nil, hash, err
	}
	if !entry.valid() {
		return nil, hash, fmt.Errorf("it is of an unknown kind %q", entry.Kind)
	}
	return &entry, hash, nil
}

// chain hashes a record's text together with the hash of the line before.
func chain(last [sha256.Size]byte, text []byte) [sha256.Size]byte {
	return sha256.Sum256(append(last[:], text...))
}

// append writes records, which remember was told of, and returns once they are on disk. If it cannot, the file is cut back to what
// it was and the records are forgotten; if that fails too, the journal is broken.
func (j *journal) append(entries []*record) error {
	err := j.broken
	if err == nil {
		err = j.writeRecords(entries)
	}
	if err != nil {
		for _, entry := range slices.Backward(entries) {
			j.forget(entry)
		}
		return fmt.Errorf("write signer journal: %w", err)
	}
	return nil
}

func (j *journal) writeRecords(entries []*record) error {
	var lines []byte
	var err error
	last := j.last
	for _, entry := range entries {
		if lines, last, err = appendLine(lines, last, entry); err != nil {
			return err
		}
	}
	if err := j.write(lines); err != nil {
		return err
	}
	j.last = last
	return nil
}

func appendLine(lines []byte, last [sha256.Size]byte, entry *record) ([]byte, [sha256.Size]byte, error) {
	text, err := json.Marshal(entry)
	if err != nil {
		return lines, last, err
	}
	if n := hex.EncodedLen(sha256.Size) + len(text) + 2; n > maxRecordBytes {
		return lines, last, fmt.Errorf("a record of %d bytes is too long", n)
	}
	hash := chain(last, text)
	lines = append(hex.AppendEncode(lines, hash[:]), ' ')
	return append(append(lines, text...), '\n'), hash, nil
}

func (j *journal) write(lines []byte) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := j.file.WriteAt(lines, j.length); err != nil {
		if cut := errors.Join(j.file.Truncate(j.length), j.file.Sync()); cut != nil {
			j.broken = errors.Join(err, cut)
		}
		return err
	}
	// After a failed sync the kernel may have dropped the pages: what the disk holds is not known, so that is final.
	if err := j.file.Sync(); err != nil {
		j.broken = err
		return err
	}
	j.length += int64(len(lines))
	return nil
}

func (j *journal) remember(entry *record) {
	switch entry.Kind {
	case kindBase:
		j.horizon = entry.Base.Horizon
		return
	case kindSequences:
		maps.Copy(j.sequence, entry.Sequences)
		return
	}
	if j.oldest.IsZero() {
		j.oldest = entry.At
	}
	nonce := entry.nonce()
	j.nonces[nonce] = entry.owner()
	switch entry.Kind {
	case kindCancel:
		j.cancels[nonce] = append(j.cancels[nonce], entry.Request)
	case kindSweep:
		j.sweeps[entry.Sweep.ID] = signed{entry.Request, nonce}
	default:
		j.batches[entry.Batch] = signed{entry.Request, nonce}
		for _, payout := range entry.Payouts {
			j.payouts[payout.ID] = entry.Batch
			j.sequence[payout.Payee] = payout.Sequence
		}
	}
	j.recent = append(j.recent, entry)
}

// forget undoes the last remember.
func (j *journal) forget(entry *record) {
	nonce := entry.nonce()
	switch entry.Kind {
	case kindCancel:
		j.cancels[nonce] = j.cancels[nonce][:len(j.cancels[nonce])-1]
	case kindSweep:
		delete(j.sweeps, entry.Sweep.ID)
	default:
		delete(j.batches, entry.Batch)
		for _, payout := range entry.Payouts {
			delete(j.payouts, payout.ID)
			j.sequence[payout.Payee] = payout.Sequence - 1
		}
	}
	j.recent = j.recent[:len(j.recent)-1]
	if _, batch := j.batches[entry.Batch]; len(j.cancels[nonce]) == 0 && !batch {
		delete(j.nonces, nonce)
	}
}

// signedSince sums what was signed of a kind after a time, and counts the messages of all kinds. A clock that was set back does not
// free anything: records from its future count.
func (j *journal) signedSince(kind string, start time.Time) (total uint64, messages int) {
	for len(j.recent) > 0 && !j.recent[0].At.After(start) {
		j.recent = j.recent[1:]
	}
	for _, entry := range j.recent {
		if entry.Kind == kind {
			total += entry.Total
		}
	}
	return total, len(j.recent)
}

// known reports whether exactly this was signed before.
func (j *journal) known(entry *record) bool {
	switch entry.Kind {
	case kindCancel:
		return slices.ContainsFunc(j.cancels[entry.nonce()], func(request []byte) bool { return bytes.Equal(request, entry.Request) })
	case kindSweep:
		return bytes.Equal(j.sweeps[entry.Sweep.ID].request, entry.Request)
	default:
		return bytes.Equal(j.batches[entry.Batch].request, entry.Request)
	}
}

// conflicts compares a new record with what was signed before.
func (j *journal) conflicts(entry *record) *Refusal {
	nonce := entry.nonce()
	if owner, used := j.nonces[nonce]; used && owner != entry.owner() {
		return refuse(RuleNonceUsed, "the nonce %s with the value %s was signed for %s", nonce.account, nonce.value, owner)
	}
	switch entry.Kind {
	case kindCancel:
		return j.cancelConflicts(entry)
	case kindSweep:
		if _, swept := j.sweeps[entry.Sweep.ID]; swept {
			return refuse(RuleBatchChanged, "%s was signed before with other content", entry.Sweep.ID)
		}
		return j.forgotten(entry)
	}
	if _, before := j.batches[entry.Batch]; before {
		return refuse(RuleBatchChanged, "%s was signed before with other content", entry.Batch)
	}
	if refusal := j.forgotten(entry); refusal != nil {
		return refusal
	}
	for _, payout := range entry.Payouts {
		if other, signed := j.payouts[payout.ID]; signed {
			return refuse(RulePayoutSigned, "%s was signed in %s", payout.ID, other)
		}
		if next := j.sequence[payout.Payee] + 1; payout.Sequence != next {
			return refuse(RuleSequence, "the next payout to %s is number %d, %s is number %d: the database or this journal was rolled back",
				payout.Payee, next, payout.ID, payout.Sequence)
		}
	}
	return nil
}

// cancelConflicts lets a batch be cancelled on the nonce value that it was signed on, and on no other: of the two messages at most
// one lands.
func (j *journal) cancelConflicts(entry *record) *Refusal {
	nonce := entry.nonce()
	if batch, known := j.batches[entry.Batch]; known && batch.nonce != nonce {
		return refuse(RuleNonceUsed, "%s was signed on the nonce %s with the value %s, and is cancelled there only", entry.Batch,
			batch.nonce.account, batch.nonce.value)
	}
	if len(j.cancels[nonce]) >= maxCancelsPerNonceValue {
		return refuse(RuleNonceUsed, "%s was cancelled %d times on this nonce value", entry.Batch, maxCancelsPerNonceValue)
	}
	return nil
}

func (j *journal) has(batch ids.Batch) bool {
	_, signed := j.batches[batch]
	return signed
}
