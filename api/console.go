package api

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strings"
)

const (
	indexFile = "index.html"

	consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
		"manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

	immutable  = "public, max-age=31536000, immutable"
	revalidate = "no-cache"
)

// hashed matches the names that the console's build derives from contents: "index-B7f3kQ9x.js".
var hashed = regexp.MustCompile(`^assets/.*-[A-Za-z0-9_-]{8,}\.[a-z0-9]+$`)

// encodings are the compressed spellings that may lie beside a file, the best first.
var encodings = []struct{ name, suffix string }{{"br", ".br"}, {"gzip", ".gz"}}

// console serves the console's files. A path that is no file is a page of the single-page application, and gets its index.
type console struct {
	files fs.FS
}

func newConsole(files fs.FS) (*console, error) {
	if files == nil {
		return nil, nil //nolint:nilnil // a server without a console has none.
	}
	if _, err := fs.Stat(files, indexFile); err != nil {
		return nil, fmt.Errorf("the console's files: %w", err)
	}
	return &console{files: files}, nil
}

func (c *console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		sendProblem(w, wrongMethod(r))
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" || !c.has(name) {
		if path.Ext(name) != "" {
			sendProblem(w, noSuchPath(r))
			return
		}
		name = indexFile
	}
	w.Header().Set("Content-Security-Policy", consolePolicy)
	if err := c.serve(w, r, name); err != nil {
		sendProblem(w, noSuchPath(r))
	}
}

func (c *console) has(name string) bool {
	info, err := fs.Stat(c.files, name)
	return err == nil && info.Mode().IsRegular()
}

// serve writes a file, in the best encoding that both sides have. It returns an error only before anything is written.
func (c *console) serve(w http.ResponseWriter, r *http.Request, name string) error {
	encoding, stored := "", name
	for _, e := range encodings {
		if accepts(r.Header.Get("Accept-Encoding"), e.name) && c.has(name+e.suffix) {
			encoding, stored = e.name, name+e.suffix
			break
		}
	}
	file, err := c.files.Open(stored)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	content, ok := file.(io.ReadSeeker)
	if !ok {
		return errors.New("the console's files cannot be read at a position")
	}
	header := w.Header()
	header.Set("Vary", "Accept-Encoding")
	header.Set("Cache-Control", cachePolicy(name))
	if kind := mime.TypeByExtension(path.Ext(name)); kind != "" {
		header.Set("Content-Type", kind)
	}
	if encoding != "" {
		header.Set("Content-Encoding", encoding)
	}
	http.ServeContent(w, r, name, info.ModTime(), content)
	return nil
}

func cachePolicy(name string) string {
	if hashed.MatchString(name) {
		return immutable
	}
	return revalidate
}

// accepts reports whether an Accept-Encoding header admits an encoding.
func accepts(header, encoding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, parameters, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(name, encoding) {
			quality := strings.ReplaceAll(parameters, " ", "")
			return quality != "q=0" && quality != "q=0.0" && quality != "q=0.00" && quality != "q=0.000"
		}
	}
	return false
}
