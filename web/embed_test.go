package web

import (
	"testing"
	"testing/fstest"

	"github.com/muster-gpu/muster/internal/errs"
)

func TestBuiltRefusesAFolderWithoutTheConsole(t *testing.T) {
	t.Parallel()
	_, err := built(fstest.MapFS{".gitkeep": {}})
	if errs.CodeOf(err) != errs.Unavailable || err.Error() != "the console is not built: run make build" {
		t.Fatalf("built() error = %v, want what to run", err)
	}
}

func TestBuiltReturnsTheConsole(t *testing.T) {
	t.Parallel()
	files, err := built(fstest.MapFS{"index.html": {Data: []byte("<!doctype html>")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.Open("index.html"); err != nil {
		t.Fatal(err)
	}
}
