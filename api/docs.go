package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.tmpl.html
var docsTemplate string

//go:embed docs.css
var docsStyle []byte

// docsPage is the rendered documentation, made once: the description does not change while the process runs.
type docsPage []byte

// describe registers every operation and renders the description and its documentation.
func (s *Server) describe(local bool) (docsPage, []byte, error) {
	s.engine = s.newEngine()
	s.huma = newHuma(s.engine)
	s.registerIdentity()
	s.registerMarket()
	s.registerClusters()
	s.registerHosts()
	s.registerWallet()
	if local {
		s.registerLocal()
	}
	s.registerFinance()
	s.registerPayouts()
	s.registerSuspense()
	s.registerReconciliation()
	s.registerSOLJournal()
	s.registerStatements()
	s.registerProof()
	spec, err := json.MarshalIndent(s.huma.OpenAPI(), "", "  ")
	if err != nil {
		return nil, nil, fmt.Errorf("write the API's description: %w", err)
	}
	page, err := renderDocs(s.huma.OpenAPI())
	return page, append(spec, '\n'), err
}

// Spec is the description of everything that the API can offer, the operations of local networks included: openapi.json.
func Spec() ([]byte, error) {
	_, spec, err := new(Server).describe(true)
	return spec, err
}

// OpenAPI returns the API's description as JSON.
func (s *Server) OpenAPI() []byte { return bytes.Clone(s.spec) }

func (s *Server) serveSpec(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(s.spec)
}

func (s *Server) serveDocs(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(s.docs)
}

func (s *Server) serveDocsStyle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(docsStyle)
}

type docsData struct {
	Title, Version, Description string
	Sections                    []docsSection
	Types                       []docsType
}

type docsSection struct {
	Name, Description string
	Operations        []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary, Description, Access string
	Parameters                                     []docsField
	Body                                           *docsReference
	Responses                                      []docsResponse
}

type docsResponse struct {
	Status, Description string
	Body                *docsReference
}

// docsReference is a type: its text, and the anchor of the schema that it names, if any.
type docsReference struct{ Text, Anchor string }

type docsField struct {
	Name, In, Description string
	Required              bool
	Type                  docsReference
}

type docsType struct {
	Name   string
	Fields []docsField
}

func renderDocs(spec *huma.OpenAPI) (docsPage, error) {
	parsed, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("documentation: %w", err)
	}
	data := docsData{Title: spec.Info.Title, Version: spec.Info.Version, Description: spec.Info.Description, Types: docsTypes(spec)}
	for _, tag := range spec.Tags {
		data.Sections = append(data.Sections, docsSection{Name: tag.Name, Description: tag.Description, Operations: docsOperations(spec, tag.Name)})
	}
	var page bytes.Buffer
	if err := parsed.Execute(&page, data); err != nil {
		return nil, fmt.Errorf("documentation: %w", err)
	}
	return page.Bytes(), nil
}

func docsOperations(spec *huma.OpenAPI, tag string) []docsOperation {
	var list []docsOperation
	for _, path := range slices.Sorted(maps.Keys(spec.Paths)) {
		for _, op := range operationsOf(spec.Paths[path]) {
			if slices.Contains(op.Tags, tag) {
				list = append(list, docsOperationOf(op))
			}
		}
	}
	return list
}

// operationsOf lists a path's operations in a fixed order.
func operationsOf(item *huma.PathItem) []*huma.Operation {
	return slices.DeleteFunc([]*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete}, func(op *huma.Operation) bool {
		return op == nil
	})
}

func docsOperationOf(op *huma.Operation) docsOperation {
	d := docsOperation{
		ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary, Description: op.Description,
		Access: accessRules[op.OperationID].describe(),
	}
	for _, p := range op.Parameters {
		d.Parameters = append(d.Parameters, docsField{
			Name: p.Name, In: p.In, Description: p.Description, Required: p.Required, Type: docsReferenceTo(p.Schema),
		})
	}
	if op.RequestBody != nil {
		d.Body = docsContent(op.RequestBody.Content)
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		d.Responses = append(d.Responses, docsResponse{Status: status, Description: r.Description, Body: docsContent(r.Content)})
	}
	return d
}

func docsContent(content map[string]*huma.MediaType) *docsReference {
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		reference := docsReferenceTo(content[kind].Schema)
		return &reference
	}
	return nil
}

func docsTypes(spec *huma.OpenAPI) []docsType {
	schemas := spec.Components.Schemas.Map()
	types := make([]docsType, 0, len(schemas))
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		schema := schemas[name]
		t := docsType{Name: name}
		for _, field := range slices.Sorted(maps.Keys(schema.Properties)) {
			property := schema.Properties[field]
			t.Fields = append(t.Fields, docsField{
				Name: field, Description: property.Description, Required: slices.Contains(schema.Required, field), Type: docsReferenceTo(property),
			})
		}
		types = append(types, t)
	}
	return types
}

func docsReferenceTo(schema *huma.Schema) docsReference {
	switch {
	case schema == nil:
		return docsReference{Text: "anything"}
	case schema.Ref != "":
		name := strings.TrimPrefix(schema.Ref, schemaPrefix)
		return docsReference{Text: name, Anchor: "type-" + name}
	case schema.Type == huma.TypeArray:
		item := docsReferenceTo(schema.Items)
		return docsReference{Text: "list of " + item.Text, Anchor: item.Anchor}
	case len(schema.Enum) > 0:
		return docsReference{Text: fmt.Sprintf("one of %v", schema.Enum)}
	case schema.PatternDescription != "":
		return docsReference{Text: schema.PatternDescription}
	case schema.Type == "":
		return docsReference{Text: "anything"}
	}
	return docsReference{Text: schema.Type + docsBounds(schema)}
}

func docsBounds(schema *huma.Schema) string {
	var bounds []string
	add := func(word string, value *float64) {
		if value != nil {
			bounds = append(bounds, word+" "+strconv.FormatFloat(*value, 'f', -1, 64))
		}
	}
	add("from", schema.Minimum)
	add("to", schema.Maximum)
	if schema.MaxLength != nil {
		bounds = append(bounds, fmt.Sprintf("at most %d characters", *schema.MaxLength))
	}
	if schema.Format != "" && schema.Format != "int64" {
		bounds = append(bounds, schema.Format)
	}
	if schema.Default != nil {
		bounds = append(bounds, fmt.Sprintf("default %v", schema.Default))
	}
	if len(bounds) == 0 {
		return ""
	}
	return " (" + strings.Join(bounds, ", ") + ")"
}
