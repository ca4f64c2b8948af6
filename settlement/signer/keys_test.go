package signer

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age/armor"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	passphrase      = "correct horse battery"
	depositOfOrgOne = "4Gv3igaSUkedyGQ4RTAPZAbDbrf6EpYCPk5vALu1fFn3"
)

// sealKeys encrypts a bench's key file, with less work than Init asks for.
func (b *bench) sealKeys(t *testing.T) []byte {
	t.Helper()
	plain, err := os.ReadFile(b.options.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal(plain, passphrase, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.options.KeyFile, sealed, privateMode); err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestAnEncryptedKeyFileNeedsItsPassphrase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sealed := b.sealKeys(t)
	for given, want := range map[string]string{"": "no passphrase", "wrong horse battery": "passphrase is wrong"} {
		b.options.Passphrase = given
		if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("passphrase %q: %v", given, err)
		}
	}
	b.options.Passphrase = passphrase
	if v := b.vault(t); v.keys.treasury.Address() != b.treasury {
		t.Fatalf("the key is that of %s, not %s", v.keys.treasury.Address(), b.treasury)
	}
	sealed[len(sealed)-1] ^= 1
	if err := os.WriteFile(b.options.KeyFile, sealed, privateMode); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(b.options.KeyFile, passphrase); err == nil {
		t.Error("a damaged key file was read")
	}
}

func TestAnArmoredKeyFileIsRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sealed := b.sealKeys(t)
	var text strings.Builder
	w := armor.NewWriter(&text)
	if _, err := w.Write(sealed); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.options.KeyFile, []byte(text.String()), privateMode); err != nil {
		t.Fatal(err)
	}
	if loaded, err := readKeys(b.options.KeyFile, passphrase); err != nil || loaded.treasury.Address() != b.treasury {
		t.Fatalf("%+v, %v", loaded, err)
	}
}

func TestInitEncryptsAndRefusesShortPassphrases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	if _, err := (KeyFile{Passphrase: "short"}).Init(path); err == nil {
		t.Fatal("a short passphrase was taken")
	}
	treasury, err := KeyFile{Passphrase: passphrase, work: 10}.Init(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !isSealed(text) || strings.Contains(string(text), "seed") {
		t.Fatalf("the file is not encrypted: %v", err)
	}
	loaded, err := readKeys(path, passphrase)
	if err != nil || loaded.treasury.Address() != treasury {
		t.Fatalf("%+v, %v", loaded, err)
	}
}

func TestAKeyFileForDepositsNeedsARemoteKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.options.KeyFile += ".deposits"
	if treasury, err := (KeyFile{DepositsOnly: true}).Init(b.options.KeyFile); err != nil || !treasury.IsZero() {
		t.Fatalf("%s, %v", treasury, err)
	}
	if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), "holds no treasury key") {
		t.Fatalf("the signer started without a treasury key: %v", err)
	}
}

// TestDepositWalletsNeverChange pins the derivation: an address that a customer was told must stay its own for ever.
func TestDepositWalletsNeverChange(t *testing.T) {
	t.Parallel()
	k := &keys{depositSeed: make([]byte, ed25519.SeedSize)}
	if got := k.deposit(ids.Org{1}).String(); got != depositOfOrgOne {
		t.Fatalf("got %s, want %s", got, depositOfOrgOne)
	}
}

func TestSystemdsCredentialsMayBeGroupReadable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if _, err := Init(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(path, ""); err == nil {
		t.Fatal("a group-readable key file was read")
	}
	t.Setenv(credentialsVariable, dir)
	if _, err := readKeys(path, ""); err != nil {
		t.Fatalf("as a credential: %v", err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeys(path, ""); err == nil {
		t.Fatal("a credential that everybody can read was read")
	}
}
