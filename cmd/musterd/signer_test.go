package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/muster-gpu/muster/settlement/signer"
)

// runSigner runs a subcommand of musterd signer.
func runSigner(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, problems bytes.Buffer
	cmd := signerCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&problems)
	cmd.SetArgs(args)
	cmd.SilenceUsage = true
	err = cmd.ExecuteContext(t.Context())
	return out.String(), problems.String(), err
}

func TestSignerInitPrintsTheAddressAndSaysThatTheFileIsPlain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	stdout, stderr, err := runSigner(t, "init", "--key", path)
	if err != nil {
		t.Fatal(err)
	}
	treasury, err := signer.Treasury(path)
	if err != nil || strings.TrimSpace(stdout) != treasury.String() || !strings.Contains(stderr, "not encrypted") {
		t.Fatalf("printed %q and %q for %s, %v", stdout, stderr, treasury, err)
	}
	if _, _, err := runSigner(t, "init", "--key", path); err == nil {
		t.Fatal("a key file was replaced")
	}
}

func TestPassphraseComesFromADescriptorOrAPrivateFile(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if _, err := write.WriteString("correct horse\n"); err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	descriptor, err := syscall.Dup(int(read.Fd())) // of its own, which the reader closes
	if err != nil {
		t.Fatal(err)
	}
	source := passphraseSource{descriptor: descriptor}
	if got, err := source.read(); err != nil || got != "correct horse" {
		t.Fatalf("from the descriptor: %q, %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(path, []byte("battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source = passphraseSource{file: path}
	if got, err := source.read(); err != nil || got != "battery staple" {
		t.Fatalf("from the file: %q, %v", got, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := source.read(); err == nil {
		t.Fatalf("a file that everybody can read gave %q", got)
	}
	if got, err := (&passphraseSource{}).read(); err != nil || got != "" {
		t.Fatalf("without a source: %q, %v", got, err)
	}
}

func TestSignerCommandsNameWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"decimals": 6}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"mint is missing":        {"policy", "check", "--policy", policy},
		"first line":             {"log", "verify", "--journal", dir},
		"required, auto or off":  {"serve", "--confine", "perhaps"},
		"unknown user":           {"serve", "--allow-user", "nobody-of-this-name"},
		"passphrase-file":        {"init", "--passphrase-fd", "3", "--passphrase-file", policy},
		"there is no signer key": {"serve", "--confine", "off", "--key", filepath.Join(dir, "key")},
		"has mode 0644: others":  {"serve", "--confine", "off", "--passphrase-file", publicFile(t, dir)},
		"at least 12 bytes":      {"init", "--key", filepath.Join(dir, "key"), "--passphrase-file", shortPassphrase(t, dir)},
		"no such file":           {"log", "verify", "--journal", filepath.Join(dir, "none")},
		"max_payouts_per_batch":  {"policy", "check", "--policy", cappedPolicy(t, dir)},
	} {
		if _, _, err := runSigner(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", args, err, want)
		}
	}
}

func publicFile(t *testing.T, dir string) string {
	t.Helper()
	path := write(t, dir, "public", "correct horse battery")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func shortPassphrase(t *testing.T, dir string) string {
	t.Helper()
	return write(t, dir, "short", "horse")
}

func cappedPolicy(t *testing.T, dir string) string {
	t.Helper()
	return write(t, dir, "capped", `{"mint":"EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
		"token_program":"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA","max_payouts_per_batch":65}`)
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAllowedUsersAreNamesOrIDs(t *testing.T) {
	t.Parallel()
	got, err := userIDs([]string{"root", strconv.Itoa(os.Getuid() + 7)})
	if err != nil || len(got) != 2 || got[0] != 0 || got[1] != os.Getuid()+7 {
		t.Fatalf("%v, %v", got, err)
	}
}
