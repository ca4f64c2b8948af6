package fakenvml

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
)

func TestProfilesAreTheEmbeddedFiles(t *testing.T) {
	t.Parallel()
	entries, err := profiles.ReadDir("profiles")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".txt"))
	}
	if !slices.Equal(names, Profiles()) {
		t.Errorf("files %v, Profiles %v", names, Profiles())
	}
}

func TestEveryGPUHasAnIdentityOfItsOwn(t *testing.T) {
	t.Parallel()
	uuid := regexp.MustCompile(`(?m)^uuid (GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$`)
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom(Profiles()).Draw(r, "profile")
		gpus := rapid.IntRange(1, MaxGPUs).Draw(r, "gpus")
		seeds := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9-]{1,12}`), 2, 2, rapid.ID).Draw(r, "seeds")
		seen := map[string]bool{}
		for _, seed := range seeds {
			text, err := render(name, gpus, seed, nil)
			if err != nil {
				r.Fatal(err)
			}
			if again, err := render(name, gpus, seed, nil); err != nil || again != text {
				r.Fatal("a seed does not give the same host twice")
			}
			if strings.ContainsAny(text, "{}") {
				r.Fatalf("a placeholder is left in %s", text)
			}
			for _, match := range uuid.FindAllStringSubmatch(text, -1) {
				seen[match[1]] = true
			}
		}
		if len(seen) != 2*gpus {
			r.Fatalf("%d different UUIDs for twice %d GPUs", len(seen), gpus)
		}
	})
}

func TestMixedHostHasDifferentBoards(t *testing.T) {
	t.Parallel()
	text, err := render("mixed", 3, "seed", nil)
	if err != nil {
		t.Fatal(err)
	}
	for board, want := range map[string]int{"RTX 4090": 2, "L40S": 1} {
		if got := strings.Count(text, board); got != want {
			t.Errorf("%d boards %s, want %d", got, board, want)
		}
	}
}

func TestFaultsStandWhereTheyBelong(t *testing.T) {
	t.Parallel()
	path, err := WriteProfile(filepath.Join(t.TempDir(), "new"), "l40s", 2, "seed", Lost(1), Slow(1500*time.Millisecond), Hang("nvmlDeviceGetName"), DriverNotLoaded())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "\ngpu\n")
	if len(parts) != 3 || strings.Contains(parts[1], "lost") || !strings.Contains(parts[2], "lost yes") {
		t.Errorf("the lost GPU is not the second: %s", text)
	}
	for _, line := range []string{"delay_ms 1500", "hang nvmlDeviceGetName", "init 9"} {
		if !strings.Contains(parts[0], line) {
			t.Errorf("%q is missing in %s", line, parts[0])
		}
	}
}

func TestImpossibleHostsAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		profile string
		gpus    int
	}{"no such profile": {"h900", 1}, "a path": {"../library/nvml_fake", 1}, "no GPUs": {"l40s", 0}, "too many GPUs": {"l40s", MaxGPUs + 1}} {
		if _, err := WriteProfile(t.TempDir(), c.profile, c.gpus, "seed"); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBuildCompilesWithoutWarningsAndReplacesTheLibrary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		path, err := Build(t.Context(), dir)
		if err != nil || path != filepath.Join(dir, LibraryName) {
			t.Fatalf("%s, %v", path, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files %v are there, %v", entries, err)
	}
	strict := exec.Command("cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-fsyntax-only", "library/nvml_fake.c")
	if output, err := strict.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestBuildSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Build(t.Context(), t.TempDir())
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "Debian packages gcc") {
		t.Errorf("got %v", err)
	}
}

func TestBuildEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(gone, t.TempDir()); err == nil {
		t.Error("a cancelled build succeeded")
	}
}
