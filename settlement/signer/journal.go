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
	"os"
	"path/filepath"
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

// record is one signature that was given. Records are only ever appended.
type record struct {
	At           time.Time        `json:"at"`
	Batch        ids.Batch        `json:"batch"`
	Request      []byte           `json:"request_sha256"`
	NonceAccount solana.PublicKey `json:"nonce_account"`
	NonceValue   solana.Hash      `json:"nonce_value"`
	Total        uint64           `json:"total"`
	Payouts      []Payout         `json:"payouts"`
	Signature    solana.Signature `json:"signature"`
}

type nonceUse struct {
	account solana.PublicKey
	value   solana.Hash
}

// journal is the file of records and what they amount to. Its lines are "<sha256> <json>\n", where the hash covers the hash of
// the line before, so that no record can be changed, dropped or moved unseen.
type journal struct {
	file   *os.File
	length int64
	last   [sha256.Size]byte // hash of the last line
	broken error             // set when the file's end is uncertain: nothing is signed any more

	batches  map[ids.Batch]*record
	nonces   map[nonceUse]ids.Batch
	payouts  map[ids.Payout]ids.Batch
	sequence map[ids.Org]uint64
	recent   []*record // of the last 24 hours, oldest first
}

// openJournal locks the journal of a directory for this process and replays it. A last record that was cut short by a crash was
// never answered and is dropped; any other damage is an error.
func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, privateDirMode); err != nil {
		return nil, fmt.Errorf("open signer journal: %w", err)
	}
	path := filepath.Join(dir, journalName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, privateMode)
	if err != nil {
		return nil, fmt.Errorf("open signer journal: %w", err)
	}
	j := &journal{
		file: file, batches: map[ids.Batch]*record{}, nonces: map[nonceUse]ids.Batch{},
		payouts: map[ids.Payout]ids.Batch{}, sequence: map[ids.Org]uint64{},
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
	lines := bufio.NewReaderSize(j.file, maxRecordBytes)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return j.dropTail(len(line))
		case err != nil:
			return fmt.Errorf("record %d: %w", number, err)
		}
		entry, hash, err := j.decode(line)
		if err != nil {
			return fmt.Errorf("record %d is damaged: %w; restore the journal from a copy, nothing is signed until then", number, err)
		}
		j.length += int64(len(line))
		j.last = hash
		j.remember(entry)
	}
}

// dropTail removes an unfinished last line.
func (j *journal) dropTail(tail int) error {
	if tail > 0 {
		if err := errors.Join(j.file.Truncate(j.length), j.file.Sync()); err != nil {
			return fmt.Errorf("drop the unfinished last record: %w", err)
		}
	}
	_, err := j.file.Seek(j.length, io.SeekStart)
	return err
}

func (j *journal) decode(line []byte) (*record, [sha256.Size]byte, error) {
	sum, text, found := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	hash := j.hash(text)
	if !found || string(sum) != hex.EncodeToString(hash[:]) {
		return nil, hash, errors.New("its hash does not match")
	}
	var entry record
	if err := json.Unmarshal(text, &entry); err != nil {
		return nil, hash, err
	}
	return &entry, hash, nil
}

// hash chains a record's text to the line before.
func (j *journal) hash(text []byte) [sha256.Size]byte {
	return sha256.Sum256(append(j.last[:], text...))
}

// append writes a record and returns once it is on disk. If it cannot, the file is cut back to what it was; if that fails too,
// the journal is broken.
func (j *journal) append(entry *record) error {
	if j.broken != nil {
		return j.broken
	}
	text, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("write signer journal: %w", err)
	}
	hash := j.hash(text)
	line := append([]byte(hex.EncodeToString(hash[:])+" "), text...)
	line = append(line, '\n')
	if len(line) > maxRecordBytes {
		return fmt.Errorf("write signer journal: a record of %d bytes is too long", len(line))
	}
	_, err = j.file.WriteAt(line, j.length)
	if err == nil {
		// After a failed sync the kernel may have dropped the pages: what the disk holds is not known, so that is final.
		if err = j.file.Sync(); err != nil {
			j.broken = fmt.Errorf("write signer journal: %w", err)
			return j.broken
		}
		j.length += int64(len(line))
		j.last = hash
		j.remember(entry)
		return nil
	}
	if cut := errors.Join(j.file.Truncate(j.length), j.file.Sync()); cut != nil {
		j.broken = fmt.Errorf("write signer journal: %w", errors.Join(err, cut))
	}
	return fmt.Errorf("write signer journal: %w", err)
}

func (j *journal) remember(entry *record) {
	j.batches[entry.Batch] = entry
	j.nonces[nonceUse{entry.NonceAccount, entry.NonceValue}] = entry.Batch
	for _, payout := range entry.Payouts {
		j.payouts[payout.ID] = entry.Batch
		j.sequence[payout.Payee] = payout.Sequence
	}
	j.recent = append(j.recent, entry)
}

// signedSince sums what was signed after a time. A clock that was set back does not free anything: records from its future count.
func (j *journal) signedSince(start time.Time) uint64 {
	for len(j.recent) > 0 && !j.recent[0].At.After(start) {
		j.recent = j.recent[1:]
	}
	var total uint64
	for _, entry := range j.recent {
		total += entry.Total
	}
	return total
}

// conflicts compares a new request with what was signed before.
func (j *journal) conflicts(batch Batch, nonce nonceUse) *Refusal {
	if other, used := j.nonces[nonce]; used {
		return refuse(RuleNonceUsed, "the nonce %s with the value %s was signed for %s", nonce.account, nonce.value, other)
	}
	for _, payout := range batch.Payouts {
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
