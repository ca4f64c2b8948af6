package output

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	columnGap  = "  "
	leastWidth = 12 // characters that a shortened column keeps
)

// Tone is how a word is coloured.
type Tone int

// The tones.
const (
	Plain Tone = iota
	Good
	Busy
	Bad
	Dim
	Bold
)

var escapes = map[Tone]string{Good: "32", Busy: "33", Bad: "31", Dim: "2", Bold: "1"}

// Cell is a piece of text.
type Cell struct {
	Text string
	Tone Tone
}

// Text makes a plain cell.
func Text(text string) Cell { return Cell{Text: text} }

// Textf makes a plain cell of a format and its arguments.
func Textf(format string, arguments ...any) Cell {
	return Cell{Text: fmt.Sprintf(format, arguments...)}
}

// Column describes a column of a table.
type Column struct {
	Head   string
	Right  bool // numbers
	Wide   bool // shown by -o wide alone
	Shrink bool // may be shortened on a narrow terminal
}

// Fact is a line of a description.
type Fact struct {
	Label string
	Value Cell
	Wide  bool
}

// Page collects what people see of one answer.
type Page struct {
	printer Printer
	text    strings.Builder
}

// Line adds a line of text.
func (p *Page) Line(format string, arguments ...any) {
	fmt.Fprintf(&p.text, format+"\n", arguments...)
}

// Title sets off what follows.
func (p *Page) Title(title string) {
	if p.text.Len() > 0 {
		p.text.WriteByte('\n')
	}
	p.text.WriteString(p.paint(Cell{title, Bold}) + "\n")
}

// Facts adds a description: labels on the left, values on the right. Facts without a value are left out.
func (p *Page) Facts(facts ...Fact) {
	facts = slices.DeleteFunc(facts, func(f Fact) bool { return f.Value.Text == "" || f.Wide && p.printer.Format != Wide })
	width := 0
	for _, f := range facts {
		width = max(width, utf8.RuneCountInString(f.Label))
	}
	for _, f := range facts {
		f.Value.Text = printable(f.Value.Text)
		label := Cell{f.Label + strings.Repeat(" ", width-utf8.RuneCountInString(f.Label)), Dim}
		p.text.WriteString(p.paint(label) + columnGap + p.paint(f.Value) + "\n")
	}
}

// Table adds a table.
func (p *Page) Table(columns []Column, rows [][]Cell) {
	for _, row := range rows {
		for i := range row {
			row[i].Text = printable(row[i].Text)
		}
	}
	if p.printer.Format != Wide {
		columns, rows = narrow(columns, rows)
	}
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = utf8.RuneCountInString(c.Head)
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].Text))
		}
	}
	p.shrink(columns, widths)
	head := make([]Cell, len(columns))
	for i, c := range columns {
		head[i] = Cell{c.Head, Dim}
	}
	p.row(columns, widths, head)
	for _, row := range rows {
		p.row(columns, widths, row)
	}
}

func narrow(columns []Column, rows [][]Cell) ([]Column, [][]Cell) {
	kept := make([]Column, 0, len(columns))
	shown := make([][]Cell, len(rows))
	for i, c := range columns {
		if c.Wide {
			continue
		}
		kept = append(kept, c)
		for r := range rows {
			shown[r] = append(shown[r], rows[r][i])
		}
	}
	return kept, shown
}

// shrink takes what is too much for the terminal from the columns that allow it.
func (p *Page) shrink(columns []Column, widths []int) {
	if p.printer.Width == 0 {
		return
	}
	total := len(columnGap) * (len(columns) - 1)
	for _, w := range widths {
		total += w
	}
	for i := len(columns) - 1; i >= 0 && total > p.printer.Width; i-- {
		if columns[i].Shrink && widths[i] > leastWidth {
			less := min(total-p.printer.Width, widths[i]-leastWidth)
			widths[i] -= less
			total -= less
		}
	}
}

func (p *Page) row(columns []Column, widths []int, cells []Cell) {
	var line strings.Builder
	for i, cell := range cells {
		text := []rune(cell.Text)
		if len(text) > widths[i] {
			text = append(text[:widths[i]-1], '…')
		}
		padding := strings.Repeat(" ", widths[i]-len(text))
		shown := p.paint(Cell{string(text), cell.Tone})
		switch {
		case columns[i].Right:
			line.WriteString(padding + shown)
		case i == len(cells)-1:
			line.WriteString(shown) // no blanks at the end of lines
		default:
			line.WriteString(shown + padding)
		}
		if i < len(cells)-1 {
			line.WriteString(columnGap)
		}
	}
	p.text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// printable keeps what others wrote, such as a name, from steering the terminal or breaking a line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

func (p *Page) paint(c Cell) string { return Paint(c, p.printer.Color) }

// Paint colours a cell's text where there is colour.
func Paint(c Cell, color bool) string {
	if !color || c.Tone == Plain || c.Text == "" {
		return c.Text
	}
	return "\x1b[" + escapes[c.Tone] + "m" + c.Text + "\x1b[0m"
}
