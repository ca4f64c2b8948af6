package signer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gagliardetto/solana-go"
)

const (
	logName         = "log"
	maxLogLineBytes = 16 << 10
	maxLogBytes     = 64 << 20 // of one file; then the next begins
	maxReasonBytes  = 1 << 10
)

// Outcomes of a request.
const (
	outcomeSigned  = "signed"
	outcomeRefused = "refused"
	outcomeFailed  = "failed" // of the journal or the key: nothing was answered
)

// logEntry is a line of the log: what was asked, and what the answer was. It holds no secrets, and neither payees nor amounts of
// their own: those are in the journal, under the same hash.
type logEntry struct {
	Number   uint64    `json:"number"`          // counts from 1
	Previous string    `json:"previous_sha256"` // of the line before, without its end
	At       time.Time `json:"at"`
	logged
}

type logged struct {
	User       int                `json:"user"` // of the asker
	Kind       string             `json:"kind"`
	ID         string             `json:"id,omitempty"`
	Request    []byte             `json:"request_sha256,omitempty"`
	Outcome    string             `json:"outcome"`
	Rule       Rule               `json:"rule,omitempty"`
	Reason     string             `json:"reason,omitempty"`
	Signatures []solana.Signature `json:"signatures,omitempty"`
}

// auditLog appends to the log. The lines are chained, so that none can be changed, dropped or moved unseen; what was cut off at the
// end shows when the last number and hash are compared with a copy elsewhere. It is safe for concurrent use.
type auditLog struct {
	dir    string
	now    func() time.Time
	limit  int64
	mu     sync.Mutex
	file   *os.File
	length int64
	number uint64
	last   string
	broken error
}

// openLog opens the newest file of a log. A last line that was cut short by a crash belongs to a request that was never answered and
// is dropped; any other damage is an error.
func openLog(dir string, now func() time.Time) (*auditLog, error) {
	file, err := os.OpenFile(filepath.Join(dir, logName), os.O_RDWR|os.O_CREATE, privateMode)
	if err != nil {
		return nil, fmt.Errorf("open signer log: %w", err)
	}
	l := &auditLog{dir: dir, now: now, limit: maxLogBytes, file: file}
	err = l.resume()
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("open signer log: %w", err)
	}
	return l, nil
}

func (l *auditLog) resume() error {
	walk := chainWalk{}
	older, err := logFiles(l.dir)
	if err != nil {
		return err
	}
	if older = older[:len(older)-1]; len(older) > 0 {
		if walk, err = lastOf(older[len(older)-1]); err != nil {
			return err
		}
	}
	length, tail, err := walk.read(l.file)
	if err != nil {
		return fmt.Errorf("%w; restore the log from a copy, nothing is signed until then", err)
	}
	l.length, l.number, l.last = length, walk.number, walk.last
	if tail > 0 {
		return errors.Join(l.file.Truncate(length), l.file.Sync())
	}
	return nil
}

func (l *auditLog) close() error { return l.file.Close() }

// append writes lines and returns once they are on disk. After an error nothing more is written.
func (l *auditLog) append(entries []logged) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	var lines []byte
	number, last, at := l.number, l.last, l.now().UTC()
	for _, entry := range entries {
		number++
		entry.Reason = strings.ToValidUTF8(entry.Reason[:min(len(entry.Reason), maxReasonBytes)], "")
		line, err := json.Marshal(logEntry{Number: number, Previous: last, At: at, logged: entry})
		if err != nil {
			return fmt.Errorf("write signer log: %w", err)
		}
		last = hexSum(line)
		lines = append(append(lines, line...), '\n')
	}
	_, err := l.file.WriteAt(lines, l.length)
	if err = errors.Join(err, l.file.Sync()); err != nil {
		l.broken = fmt.Errorf("write signer log: %w", err)
		return l.broken
	}
	l.length, l.number, l.last = l.length+int64(len(lines)), number, last
	if l.length >= l.limit {
		l.broken = l.turn() // what was written is written: only the next one fails
	}
	return nil
}

// turn puts a full file away under the number of its last line, and begins the next.
func (l *auditLog) turn() error {
	current := filepath.Join(l.dir, logName)
	if err := os.Rename(current, fmt.Sprintf("%s.%020d", current, l.number)); err != nil {
		return fmt.Errorf("begin the next signer log: %w", err)
	}
	file, err := os.OpenFile(current, os.O_RDWR|os.O_CREATE|os.O_EXCL, privateMode)
	if err != nil {
		return fmt.Errorf("begin the next signer log: %w", err)
	}
	err = errors.Join(l.file.Close(), syncDir(l.dir))
	l.file, l.length = file, 0
	return err
}

// logFiles are a log's files, the oldest first and the one that is being written last.
func logFiles(dir string) ([]string, error) {
	older, err := filepath.Glob(filepath.Join(dir, logName+".*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(older)
	return append(older, filepath.Join(dir, logName)), nil
}

// chainWalk follows the chain of lines.
type chainWalk struct {
	number   uint64
	last     string
	outcomes map[string]int
}

func lastOf(path string) (chainWalk, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return chainWalk{}, err
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	line := lines[len(lines)-1]
	var entry logEntry
	if err := json.Unmarshal(line, &entry); err != nil {
		return chainWalk{}, fmt.Errorf("the last line of %s is damaged: %w", filepath.Base(path), err)
	}
	return chainWalk{number: entry.Number, last: hexSum(line)}, nil
}

// read checks a file's lines and returns the length of the whole ones, and of what follows them.
func (w *chainWalk) read(file io.Reader) (length, tail int64, err error) {
	lines := bufio.NewReaderSize(file, maxLogLineBytes)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return length, int64(len(line)), nil
		}
		if err != nil {
			return length, 0, fmt.Errorf("line %d: %w", w.number+1, err)
		}
		if err := w.next(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return length, 0, err
		}
		length += int64(len(line))
	}
}

func (w *chainWalk) next(line []byte) error {
	var entry logEntry
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&entry); err != nil {
		return fmt.Errorf("line %d is damaged: %w", w.number+1, err)
	}
	first := w.number == 0 && w.last == "" // of what is kept: older files may have been put away elsewhere
	if !first && (entry.Number != w.number+1 || entry.Previous != w.last) {
		return fmt.Errorf("line %d does not follow line %d: a line was changed, dropped or moved", entry.Number, w.number)
	}
	if first && (entry.Number == 0 || (entry.Number == 1) != (entry.Previous == "")) {
		return fmt.Errorf("the first line has the number %d and the wrong predecessor", entry.Number)
	}
	w.number, w.last = entry.Number, hexSum(line)
	if w.outcomes != nil {
		w.outcomes[entry.Outcome]++
	}
	return nil
}

// LogReport is what a whole log amounts to.
type LogReport struct {
	First    uint64         `json:"first"` // number of the first line that is kept; 1 unless older files were put away
	Last     uint64         `json:"last"`
	LastHash string         `json:"last_sha256"` // compare it with a copy elsewhere: it shows what was cut off at the end
	Outcomes map[string]int `json:"outcomes"`
	Torn     int64          `json:"torn_bytes,omitempty"` // of an unfinished last line, which the next start drops
}

// VerifyLog checks the chain of all files of the log in a signer's journal folder. It only reads.
func VerifyLog(dir string) (LogReport, error) {
	files, err := logFiles(dir)
	if err != nil {
		return LogReport{}, fmt.Errorf("verify signer log: %w", err)
	}
	walk, report := chainWalk{outcomes: map[string]int{}}, LogReport{}
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			return LogReport{}, fmt.Errorf("verify signer log: %w", err)
		}
		_, tail, err := walk.read(file)
		_ = file.Close()
		if err == nil && tail > 0 && filepath.Base(path) != logName {
			err = errors.New("its last line is unfinished")
		}
		if err != nil {
			return LogReport{}, fmt.Errorf("verify signer log: %s: %w", filepath.Base(path), err)
		}
		report.Torn = tail
	}
	total := 0
	for _, n := range walk.outcomes {
		total += n
	}
	report.First, report.Last, report.LastHash, report.Outcomes = walk.number-uint64(total)+1, walk.number, walk.last, walk.outcomes
	return report, nil
}
