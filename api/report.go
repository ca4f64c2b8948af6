package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

const htmlType = "text/html"

// report answers with a page to read and to print, of one style sheet of its own and no script.
func report(name string, page []byte) *documentOutput {
	return &documentOutput{Body: func(hctx huma.Context) {
		hctx.SetHeader("Content-Type", htmlType+"; charset=utf-8")
		hctx.SetHeader("Content-Disposition", `inline; filename="`+name+`"`)
		hctx.SetHeader("Content-Security-Policy", reportPolicy(page))
		hctx.SetStatus(http.StatusOK)
		_, _ = hctx.BodyWriter().Write(page)
	}}
}

// reportPolicy allows a page its first style sheet, by its hash, and nothing else.
func reportPolicy(page []byte) string {
	_, rest, _ := bytes.Cut(page, []byte("<style>"))
	style, _, _ := bytes.Cut(rest, []byte("</style>"))
	sum := sha256.Sum256(style)
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
}
