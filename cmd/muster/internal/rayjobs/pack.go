package rayjobs

import (
	"archive/zip"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// MaxPackage is how large a package may be: Ray's own limit.
	MaxPackage = 100 << 20

	maxFiles      = 50_000
	maxFileBytes  = 1 << 30 // before compression
	largestNamed  = 5
	packagePrefix = "_ray_pkg_"
)

// packedAt makes equal folders equal packages; zip cannot say "no time".
var packedAt = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Package is a folder as Ray wants it.
type Package struct {
	Name    string // of the file, made from its content
	Zip     []byte
	Files   int
	Skipped []string // links that were left out
}

// URI is what a runtime environment's working_dir names.
func (p *Package) URI() string { return "gcs://" + p.Name }

// Pack zips a folder without what its .gitignore and .rayignore files and the given patterns exclude, and without .git. Equal
// content gives an equal package. Links to files are followed, links to folders left out. The error for a folder that is too
// large names its largest files.
func Pack(root string, excludes []string) (*Package, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("read the working directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder: --working-dir wants one", root)
	}
	p := &packer{root: root, given: parseIgnores(excludes, "")}
	p.zip = zip.NewWriter(&p.content)
	if err := p.folder("", p.given); err != nil {
		return nil, err
	}
	if err := p.zip.Close(); err != nil {
		return nil, fmt.Errorf("pack the working directory: %w", err)
	}
	if p.content.Len() > MaxPackage {
		return nil, p.tooLarge()
	}
	sum := sha256.Sum256(p.content.Bytes())
	return &Package{
		Name: packagePrefix + hex.EncodeToString(sum[:]) + ".zip", Zip: p.content.Bytes(), Files: len(p.files), Skipped: p.skipped,
	}, nil
}

type packed struct {
	name  string
	bytes int64
}

type packer struct {
	root    string
	given   ignores
	content bytes.Buffer
	zip     *zip.Writer
	files   []packed
	skipped []string
}

// folder adds what is below a folder, given relative to the root.
func (p *packer) folder(folder string, above ignores) error {
	within, err := above.with(p.root, folder)
	if err != nil {
		return fmt.Errorf("read the ignore files: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(p.root, folder))
	if err != nil {
		return fmt.Errorf("read the working directory: %w", err)
	}
	for _, entry := range entries {
		if err := p.entry(folder, entry, within); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(folder string, entry os.DirEntry, within ignores) error {
	name := path.Join(folder, entry.Name())
	info, err := entry.Info()
	if entry.Type()&os.ModeSymlink != 0 {
		info, err = os.Stat(filepath.Join(p.root, name))
		if err != nil || info.IsDir() {
			p.skipped = append(p.skipped, name)
			return nil //nolint:nilerr // a link to nothing is reported with the package, it does not spoil it
		}
	}
	if err != nil {
		return fmt.Errorf("read the working directory: %w", err)
	}
	switch {
	case entry.Name() == ".git" || within.excludes(name, info.IsDir()):
		return nil
	case info.IsDir():
		return p.folder(name, within)
	case info.Mode().IsRegular():
		return p.file(name, info)
	default: // sockets, pipes and devices
		return nil
	}
}

func (p *packer) file(name string, info os.FileInfo) error {
	p.files = append(p.files, packed{name, info.Size()})
	if len(p.files) > maxFiles {
		return fmt.Errorf("%s holds more than %d files: a package is for code, so keep data in storage, or exclude it in .rayignore or with --exclude", p.root, maxFiles)
	}
	if info.Size() > maxFileBytes || p.content.Len() > MaxPackage {
		return p.tooLarge()
	}
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: packedAt}
	header.SetMode(info.Mode())
	writer, err := p.zip.CreateHeader(header)
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	file, err := os.Open(filepath.Join(p.root, name))
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	_, err = io.Copy(writer, io.LimitReader(file, maxFileBytes))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	return nil
}

func (p *packer) tooLarge() error {
	largest := slices.SortedFunc(slices.Values(p.files), func(a, b packed) int { return cmp.Compare(b.bytes, a.bytes) })
	var named strings.Builder
	for _, f := range largest[:min(largestNamed, len(largest))] {
		fmt.Fprintf(&named, "\n  %7.1f MiB  %s", float64(f.bytes)/(1<<20), f.name)
	}
	return fmt.Errorf("%s is larger than the %d MiB that Ray takes as a package: keep data in storage, or exclude it in .rayignore or with --exclude. The largest files:%s",
		p.root, MaxPackage>>20, named.String())
}
