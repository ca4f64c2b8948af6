// Package output writes what commands answer: tables for people, JSON and YAML for programs, names for shells.
//
// JSON and YAML are the API's documents, field for field, in the API's order. Tables are aligned and never cut when they go into
// a pipe or file; on a terminal that is too narrow the columns that allow it are shortened. A Printer writes to one stream and
// is not safe for concurrent use.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Format is how an answer is written.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
	YAML  Format = "yaml"
	Name  Format = "name"
)

// Formats lists them, for help and completion.
var Formats = []string{string(Table), string(Wide), string(JSON), string(YAML), string(Name)}

// Printer writes answers.
type Printer struct {
	Out    io.Writer
	Format Format
	Color  bool
	Width  int // of the terminal; 0: no terminal
	Now    time.Time
}

// ForPeople reports whether the format is a table.
func (p Printer) ForPeople() bool { return p.Format == Table || p.Format == Wide }

// Print writes document in the chosen format: itself for programs, names one a line, or what human makes of a page.
func (p Printer) Print(document any, names []string, human func(*Page)) error {
	switch p.Format {
	case JSON:
		return p.printJSON(document)
	case YAML:
		return p.printYAML(document)
	case Name:
		text := strings.Join(names, "\n")
		if text != "" {
			text += "\n"
		}
		return p.write(text)
	case Table, Wide:
	}
	page := &Page{printer: p}
	human(page)
	return p.write(page.text.String())
}

func (p Printer) write(text string) error {
	if _, err := io.WriteString(p.Out, text); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func (p Printer) printJSON(document any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return p.write(text.String())
}

// printYAML goes through JSON, which is YAML too: so both have the same names, in the same order.
func (p Printer) printYAML(document any) error {
	encoded, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(encoded, &node); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	plain(&node)
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return p.write(text.String())
}

// plain drops JSON's brackets and quotes, but for those that keep a text from being read as a number.
func plain(node *yaml.Node) {
	node.Style = 0
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" {
		var bare any
		if yaml.Unmarshal([]byte(node.Value), &bare) != nil || bare != node.Value {
			node.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, child := range node.Content {
		plain(child)
	}
}
