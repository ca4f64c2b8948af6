package process

import (
	"errors"
	"io"
	"os"
	"strings"
)

const (
	maxLogBytes  = 4 << 20 // a node's own log; Ray's further logs are in its session folder and bounded by Ray
	tailBytes    = 2 << 10
	tailMaxLines = 20
)

// openLog opens a node's log for the node to write to. Appending is what lets trimLog cut it short underneath the writer.
func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// trimLog keeps a log bounded: once it is full its content becomes path.1, and it starts anew.
func trimLog(path string, limit int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return err
	}
	if err := copyFile(path+".1", path, limit); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

func copyFile(to, from string, limit int64) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.CopyN(target, source, limit)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// logTail returns the last lines of a log in printable form, "" if there is none.
func logTail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	from := max(0, info.Size()-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(file, from, tailBytes))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(printable(string(text))), "\n")
	if from > 0 && len(lines) > 1 {
		lines = lines[1:] // cut in its middle
	}
	if len(lines) > tailMaxLines {
		lines = lines[len(lines)-tailMaxLines:]
	}
	return strings.Join(lines, "\n")
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r != '\x7f' && r != '�' {
			return r
		}
		return -1
	}, text)
}
