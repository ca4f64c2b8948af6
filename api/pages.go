package api

import (
	"encoding/base64"
	"strings"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const maxPage = 200

// Cursors are opaque to clients: the id of the last item, wrapped so that nobody builds one.

func cursorOf[K ids.Kind](last ids.ID[K]) string {
	return base64.RawURLEncoding.EncodeToString([]byte(last.String()))
}

// readCursor reads a cursor; the empty one is the beginning. The first argument only names the kind of id.
func readCursor[K ids.Kind](start ids.ID[K], cursor string) (ids.ID[K], error) {
	if cursor == "" {
		return start, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		start, err = ids.Parse[K](string(text))
	}
	if err != nil || start.IsZero() {
		return start, errs.InvalidField("query.cursor", "this is not a cursor of this list: give next_cursor of the page before")
	}
	return start, nil
}

// page makes one page of a list. A full page may be the last one: the next is empty then.
func page[T, U any, K ids.Kind](rows []T, limit int, id func(T) ids.ID[K], wire func(T) U) *output[apiv1.List[U]] {
	list := apiv1.List[U]{Items: convert(rows, wire)}
	if limit > 0 && len(rows) >= limit { // more: lines that share a cursor are not cut apart
		list.NextCursor = cursorOf(id(rows[len(rows)-1]))
	}
	return answer(list)
}

// convert maps a slice; the result is never nil, so that it is never null in JSON.
func convert[T, U any](rows []T, wire func(T) U) []U {
	items := make([]U, len(rows))
	for i, row := range rows {
		items[i] = wire(row)
	}
	return items
}

// whole makes the only page of a list that is short by its nature.
func whole[T, U any](rows []T, wire func(T) U) *output[apiv1.List[U]] {
	return answer(apiv1.List[U]{Items: convert(rows, wire)})
}

// inBody says where in the request an input is that a domain names by itself: those come from the body.
func inBody(path string) string {
	switch part, _, _ := strings.Cut(path, "."); part {
	case "body", "query", "path", "header":
		return path
	default:
		return "body." + path
	}
}
