package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
)

// Error is what is wrong with a query and where: Length runes from the rune at Offset on, counted from 0. In a chain of errors it is
// also an *errs.Error about the field q, which names the offset in words and draws nothing.
type Error struct {
	Offset  int
	Length  int
	Message string // what was found there and what was expected
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("at position %d: %s", e.Offset, e.Message) }

// Unwrap returns the same as a domain error.
func (e *Error) Unwrap() error {
	domain := errs.InvalidField("q", "%s", e.Error())
	domain.Fields[0].Position = &e.Offset
	return domain
}

// Parse reads a query; prices are in the currency. Empty text matches every host.
func Parse(text string, currency money.Currency) (Filter, error) {
	p := &parser{text: []rune(text), currency: currency}
	if !utf8.ValidString(text) {
		return Filter{}, &Error{Offset: invalidAt(text), Length: 1, Message: "this is not UTF-8 text"}
	}
	if len(p.text) > MaxLength {
		return Filter{}, &Error{
			Offset: MaxLength, Length: len(p.text) - MaxLength,
			Message: fmt.Sprintf("a query has at most %d characters, this one has %d", MaxLength, len(p.text)),
		}
	}
	var filter Filter
	for p.skipSpace(); !p.atEnd(); p.skipSpace() {
		start := p.at
		c, err := p.condition()
		if err != nil {
			return Filter{}, err
		}
		if len(filter.conditions) == maxConditions {
			return Filter{}, p.fail(start, "a query has at most %d conditions", maxConditions)
		}
		filter.conditions = append(filter.conditions, c)
	}
	return filter, nil
}

// invalidAt is the offset in runes of the first byte that is no UTF-8.
func invalidAt(text string) int {
	runes := 0
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			break
		}
		runes++
	}
	return runes
}

// parser reads a query from left to right; at is the rune that it has come to.
type parser struct {
	text     []rune
	at       int
	currency money.Currency
}

func (p *parser) atEnd() bool { return p.at == len(p.text) }

func (p *parser) skipSpace() {
	for !p.atEnd() && unicode.IsSpace(p.text[p.at]) {
		p.at++
	}
}

// take reads runes while they pass.
func (p *parser) take(passes func(rune) bool) string {
	start := p.at
	for !p.atEnd() && passes(p.text[p.at]) {
		p.at++
	}
	return string(p.text[start:p.at])
}

// fail makes an error about what was read since start, or about what comes there.
func (p *parser) fail(start int, format string, args ...any) *Error {
	end := p.at
	if end == start {
		end = p.wordEnd()
	}
	return &Error{Offset: start, Length: end - start, Message: fmt.Sprintf(format, args...)}
}

// wordEnd is where the word, or else the one rune, ends that comes at the present place.
func (p *parser) wordEnd() int {
	if p.atEnd() {
		return p.at
	}
	end := p.at + 1
	for isWord(p.text[p.at]) && end < len(p.text) && isWord(p.text[end]) {
		end++
	}
	return end
}

// found names what comes at the present place.
func (p *parser) found() string {
	if p.atEnd() {
		return "the end of the query"
	}
	return strconv.Quote(string(p.text[p.at:p.wordEnd()]))
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '.' }

func isOperator(r rune) bool { return strings.ContainsRune("=!<>~", r) }

func (p *parser) condition() (condition, error) {
	start := p.at
	name := p.take(isWord)
	if name == "" {
		return condition{}, p.fail(start, "%s is not a field: write a condition such as gpu=H100", p.found())
	}
	f := fieldOf(name)
	if f == nil {
		return condition{}, p.fail(start, "there is no field %q: the fields are %s", name, fieldNames())
	}
	op, err := p.operator(f)
	if err != nil {
		return condition{}, err
	}
	values, err := p.values(f, op)
	return condition{field: f, op: op, values: values}, err
}

func fieldNames() string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

func (p *parser) operator(f *field) (string, error) {
	p.skipSpace()
	start := p.at
	allowed := f.kind.operators()
	switch op := p.take(isOperator); {
	case op == "":
		return "", p.fail(start, "%s is not an operator: %s takes %s", p.found(), f.name, strings.Join(allowed, " "))
	case !slices.Contains(allowed, op):
		return "", p.fail(start, "%s does not take %q: it takes %s", f.name, op, strings.Join(allowed, " "))
	default:
		return op, nil
	}
}

func (p *parser) values(f *field, op string) ([]value, error) {
	var values []value
	for {
		p.skipSpace()
		start := p.at
		v, err := p.value(f)
		if err != nil {
			return nil, err
		}
		switch {
		case len(values) > 0 && strings.ContainsAny(op, "<>"):
			return nil, p.fail(start, "%s compares with one value: write one condition for each bound", op)
		case len(values) == maxValues:
			return nil, p.fail(start, "a condition has at most %d values", maxValues)
		case !slices.Contains(values, v):
			values = append(values, v)
		}
		if !p.comma() {
			return values, nil
		}
	}
}

// comma reads a comma, with or without spaces before it.
func (p *parser) comma() bool {
	end := p.at
	p.skipSpace()
	if !p.atEnd() && p.text[p.at] == ',' {
		p.at++
		return true
	}
	p.at = end
	return false
}

func (p *parser) value(f *field) (value, error) {
	start := p.at
	if !p.atEnd() && p.text[p.at] == '"' {
		text, err := p.quoted()
		if err != nil {
			return value{}, err
		}
		return p.read(f, text, start)
	}
	text := p.take(func(r rune) bool { return !unicode.IsSpace(r) && r != ',' && r != '"' && !isOperator(r) })
	if text == "" {
		return value{}, p.fail(start, "%s is not a value: %s is written like %s", p.found(), f.name, f.example)
	}
	return p.read(f, text, start)
}

func (p *parser) read(f *field, text string, start int) (value, error) {
	v, err := f.kind.read(text, p.currency)
	if err != nil {
		return value{}, p.fail(start, "%s", err)
	}
	return v, nil
}

// quoted reads text in double quotes; a backslash makes the next rune stand for itself.
func (p *parser) quoted() (string, error) {
	start := p.at
	var b strings.Builder
	for p.at++; !p.atEnd(); p.at++ {
		switch r := p.text[p.at]; r {
		case '"':
			p.at++
			return b.String(), nil
		case '\\':
			p.at++
			if p.atEnd() {
				return "", p.fail(start, "the text is not closed: it ends with \"")
			}
			b.WriteRune(p.text[p.at])
		default:
			b.WriteRune(r)
		}
	}
	return "", p.fail(start, "the text is not closed: it ends with \"")
}

// quote writes text so that Parse reads it back.
func quote(text string) string {
	plain := text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || r == ',' || r == '"' || isOperator(r)
	})
	if plain {
		return text
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}
