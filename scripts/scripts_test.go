// Package scripts_test tests the shell scripts as a person meets them.
package scripts_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tools are what prerequisites.sh itself runs; a machine always has them.
var tools = []string{"bash", "dirname", "sort", "head", "cat"}

// path makes a folder of programs: those in tools, and fakes that print what a version check asks for.
func path(t *testing.T, fakes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range tools {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, says := range fakes {
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", says)
		if says == "" {
			script = "#!/bin/sh\nexit 1\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func prerequisites(t *testing.T, path string, args ...string) (output string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(path, "bash"), append([]string{"prerequisites.sh"}, args...)...)
	cmd.Env = []string{"PATH=" + path}
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func complete() map[string]string {
	return map[string]string{
		"go": "go1.26.0", "node": "v20.1.0", "npm": "11", "python3": "3.11.2", "cc": "cc", "make": "make", "flock": "flock",
		"chromium": "chromium", "shellcheck": "shellcheck",
	}
}

func TestPrerequisitesAcceptACompleteMachine(t *testing.T) {
	t.Parallel()
	if out, ok := prerequisites(t, path(t, complete()), "test"); !ok || out != "" {
		t.Errorf("ok = %v: %s", ok, out)
	}
}

func TestPrerequisitesNameAllThatIsMissingAtOnce(t *testing.T) {
	t.Parallel()
	out, ok := prerequisites(t, path(t, nil), "test")
	if ok {
		t.Error("an empty machine was accepted")
	}
	for _, want := range []string{
		"apt-get install golang-go", "apt-get install nodejs", "apt-get install npm", "apt-get install python3 python3-venv",
		"apt-get install build-essential", "apt-get install make", "apt-get install chromium", "apt-get install shellcheck",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

func TestPrerequisitesOfTheTestsAreNotThoseOfTheStack(t *testing.T) {
	t.Parallel()
	fakes := complete()
	delete(fakes, "chromium")
	delete(fakes, "shellcheck")
	if out, ok := prerequisites(t, path(t, fakes)); !ok {
		t.Errorf("make up would ask for test tools:\n%s", out)
	}
}

func TestPrerequisitesNameWhatIsTooOldOrBroken(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ program, says, want string }{
		{"go", "go1.19.8", "Go 1.26 or newer: apt-get install golang-go, or https://go.dev/dl/ where Debian's is older (found 1.19.8)"},
		{"go", "", "(found one that does not run)"},
		{"node", "v18.20.4", "Node.js 20 or newer"},
		{"python3", "3.9.2", "Python 3.10 to 3.14"},
		{"python3", "3.15.0", "Python 3.10 to 3.14"},
		{"python3", "", "(found one that does not run)"},
	} {
		fakes := complete()
		fakes[tc.program] = tc.says
		out, ok := prerequisites(t, path(t, fakes))
		if ok || !strings.Contains(out, tc.want) {
			t.Errorf("%s that says %q: ok = %v, %q is not in:\n%s", tc.program, tc.says, ok, tc.want, out)
		}
		if n := strings.Count(out, "  - "); n != 1 {
			t.Errorf("%s that says %q: %d things are said to be missing, want 1:\n%s", tc.program, tc.says, n, out)
		}
	}
}

func TestPrerequisitesNameAMissingVenv(t *testing.T) {
	t.Parallel()
	dir := path(t, complete())
	script := "#!/bin/sh\ncase $2 in *ensurepip*) exit 1 ;; esac\necho 3.11.2\n"
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	out, ok := prerequisites(t, dir)
	if ok || !strings.Contains(out, "apt-get install python3-venv") {
		t.Errorf("ok = %v:\n%s", ok, out)
	}
}

func TestCountOfNodeTestsTakesSkippedForFailed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ log, want string }{
		"node --test":          {"ok 1 - x\n# tests 5\n# pass 3\n# fail 1\n# cancelled 0\n# skipped 1\n# todo 0\n# duration_ms 60\n", "3 2"},
		"node --test, spec":    {"ℹ tests 2\nℹ pass 2\nℹ fail 0\n", "2 0"},
		"Vitest":               {" Test Files  2 passed (2)\n\x1b[2m      Tests \x1b[22m \x1b[1m\x1b[32m89 passed\x1b[39m\x1b[22m (89)\n", "89 0"},
		"Vitest with failures": {"      Tests  1 failed | 12 passed | 2 skipped (15)\n", "12 3"},
		"nothing":              {"npm error Missing script\n", "0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(log, []byte(tc.log), 0o600); err != nil {
				t.Fatal(err)
			}
			script := `source <(sed -n '/^count_node()/,/^}/p' test.sh); set -euo pipefail; count_node "$1"; echo "$pass $fail"`
			out, err := exec.CommandContext(t.Context(), "bash", "-c", script, "bash", log).CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != tc.want {
				t.Errorf("%q, %v, want %q", out, err, tc.want)
			}
		})
	}
}
