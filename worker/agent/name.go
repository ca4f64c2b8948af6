package agent

import (
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/muster-gpu/muster/internal/errs"
)

const maxName = 80 // characters

// Self is what an agent says of itself.
type Self struct {
	Name    string // what people see; DefaultName unless the owner chose one
	Version string
}

// DefaultName is the machine's own name, "" if it has none: then the control plane makes one.
func DefaultName() string {
	name, err := os.Hostname()
	if err != nil || CheckName(name) != nil {
		return ""
	}
	return name
}

// CheckName refuses what cannot be shown as a host's name in a table.
func CheckName(name string) error {
	switch count := utf8.RuneCountInString(name); {
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errs.InvalidField("name", "a host's name is of printable characters: %q is not", name)
	case count == 0:
		return errs.InvalidField("name", "the host's name is empty: give 1 to %d characters, or leave --name out for the machine's own", maxName)
	case count > maxName:
		return errs.InvalidField("name", "the host's name has %d characters: give at most %d", count, maxName)
	case strings.TrimSpace(name) != name:
		return errs.InvalidField("name", "the host's name begins or ends with a space: write %q", strings.TrimSpace(name))
	}
	return nil
}
