package seal_test

import (
	"bytes"
	"testing"

	"github.com/muster-gpu/muster/internal/seal"
)

func TestSealedSecretsOpenWithTheirKeyOnly(t *testing.T) {
	t.Parallel()
	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	sealed := box.Seal("a Ray token")
	if bytes.Contains(sealed, []byte("Ray")) || bytes.Equal(sealed, box.Seal("a Ray token")) {
		t.Error("the ciphertext shows the secret or that two secrets are equal")
	}
	if got, err := box.Unseal(sealed); err != nil || got != "a Ray token" {
		t.Errorf("unsealed %q, %v", got, err)
	}
	if got, err := other.Unseal(sealed); err == nil {
		t.Errorf("another key read %q", got)
	}
	sealed[len(sealed)-1] ^= 1
	if got, err := box.Unseal(sealed); err == nil {
		t.Errorf("an altered ciphertext read as %q", got)
	}
	if _, err := seal.New([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
}
