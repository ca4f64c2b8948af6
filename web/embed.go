// Package web holds the built console, embedded in the binary.
//
// The console is built by `make build` into dist/. A checkout without a build still compiles, because dist/.gitkeep is
// committed; Files then answers an error that says what to run, and nothing is served in the console's place.
package web

import (
	"embed"
	"io/fs"

	"github.com/muster-gpu/muster/internal/errs"
)

//go:embed all:dist
var dist embed.FS

// Files returns the built console with index.html at its root, or an errs.Unavailable error when it has not been built.
func Files() (fs.FS, error) {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, err
	}
	return built(files)
}

func built(files fs.FS) (fs.FS, error) {
	if _, err := fs.Stat(files, "index.html"); err != nil {
		return nil, errs.New(errs.Unavailable, "the console is not built: run make build")
	}
	return files, nil
}
