package embeddedpg

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/xi2/xz"
)

// Version is the PostgreSQL version that this package runs.
const Version = "18.6.0"

// majorVersion is what PostgreSQL writes into PG_VERSION.
const majorVersion = "18"

const (
	repositoryURL   = "https://repo1.maven.org/maven2/io/zonky/test/postgres"
	downloadTimeout = 5 * time.Minute
	maxArchiveBytes = 64 << 20
	maxFileBytes    = 128 << 20
)

// archive is one published build and the checksum it must have.
type archive struct {
	platform string
	sha256   string
}

// archives are the builds by Go's name of the platform.
var archives = map[string]archive{
	"linux/amd64": {"linux-amd64", "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1"},
	"linux/arm64": {"linux-arm64v8", "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be"},
}

// ensureBinaries returns the folder with bin, lib and share of Version below dir, downloading and unpacking it if it is not
// there. Programs that call it at the same time wait for each other.
func ensureBinaries(ctx context.Context, dir string) (string, error) {
	root := filepath.Join(dir, Version)
	if isFile(filepath.Join(root, "bin", "postgres")) {
		return root, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the folder for PostgreSQL's binaries: %w", err)
	}
	unlock, err := lockWait(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFile(filepath.Join(root, "bin", "postgres")) {
		return root, nil
	}
	data, err := download(ctx, http.DefaultClient, repositoryURL)
	if err != nil {
		return "", err
	}
	return root, unpack(data, root)
}

// download fetches this platform's archive and checks its checksum.
func download(ctx context.Context, client *http.Client, repository string) ([]byte, error) {
	a, ok := archives[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("there is no PostgreSQL build for %s/%s: set DATABASE_URL to a server of your own",
			runtime.GOOS, runtime.GOARCH)
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	name := "embedded-postgres-binaries-" + a.platform
	url := fmt.Sprintf("%s/%s/%s/%s-%s.jar", repository, name, Version, name, Version)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("download PostgreSQL %s: %w", Version, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("download PostgreSQL %s: %w", Version, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("download PostgreSQL %s: %s answered %s", Version, url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxArchiveBytes))
	if err != nil {
		return nil, fmt.Errorf("download PostgreSQL %s: %w", Version, err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.sha256 {
		return nil, fmt.Errorf("download PostgreSQL %s: the archive from %s has checksum %x, expected %s: it was not used",
			Version, url, sum, a.sha256)
	}
	return data, nil
}

// unpack puts the tree inside the jar at root, all of it or nothing.
func unpack(jar []byte, root string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(root), "unpack-")
	if err != nil {
		return fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // the server's user must be able to read it
		return fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	if err := unpackInto(jar, tmp); err != nil {
		return fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	if err := os.Rename(tmp, root); err != nil {
		return fmt.Errorf("unpack PostgreSQL: %w", err)
	}
	return nil
}

func unpackInto(jar []byte, dir string) error {
	z, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return err
	}
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".txz") })
	if i < 0 {
		return errors.New("the archive holds no .txz file")
	}
	r, err := z.File[i].Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	x, err := xz.NewReader(r, 0)
	if err != nil {
		return err
	}
	return untar(tar.NewReader(x), dir)
}

func untar(t *tar.Reader, dir string) error {
	root, err := os.OpenRoot(dir) // no entry can leave it, whatever its name or link says
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := untarEntry(root, h, t); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func untarEntry(root *os.Root, h *tar.Header, body io.Reader) error {
	name := filepath.Clean(h.Name)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		mode := os.FileMode(0o644)
		if h.Mode&0o111 != 0 {
			mode = 0o755
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		n, err := io.Copy(f, io.LimitReader(body, maxFileBytes))
		if err == nil && n < h.Size {
			err = fmt.Errorf("larger than %d bytes", maxFileBytes)
		}
		return errors.Join(err, f.Close())
	default:
		return fmt.Errorf("unexpected entry type %q", h.Typeflag)
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
