package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Key files are encrypted in the format of age (age-encryption.org/v1), so that `age -d` opens them too.
const (
	sealedPrefix  = "age-encryption.org/v1\n"
	workFactor    = 18 // of scrypt: about a second
	maxWorkFactor = 22

	// MinPassphrase is the length of the shortest passphrase that a key file is encrypted with, in bytes.
	MinPassphrase = 12
)

func isSealed(text []byte) bool {
	return bytes.HasPrefix(text, []byte(sealedPrefix)) || bytes.HasPrefix(text, []byte(armor.Header))
}

func seal(text []byte, passphrase string, factor int) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("the passphrase must have at least %d bytes", MinPassphrase)
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	recipient.SetWorkFactor(factor)
	var sealed bytes.Buffer
	body, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if _, err := body.Write(text); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := body.Close(); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return sealed.Bytes(), nil
}

func unseal(sealed []byte, passphrase string) ([]byte, error) {
	if passphrase == "" {
		return nil, errors.New("it is encrypted, and there is no passphrase: give one by a file descriptor or a file")
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	source := io.Reader(bytes.NewReader(sealed))
	if bytes.HasPrefix(sealed, []byte(armor.Header)) {
		source = armor.NewReader(source)
	}
	body, err := age.Decrypt(source, identity)
	if err != nil {
		return nil, errors.New("it cannot be decrypted: the passphrase is wrong, or the file is damaged")
	}
	text, err := io.ReadAll(io.LimitReader(body, maxKeyFileBytes))
	if err != nil {
		return nil, errors.New("it cannot be decrypted: the file is damaged")
	}
	return text, nil
}

// ReadPassphrase reads a passphrase from a private file. Spaces and line ends around it are not part of it.
func ReadPassphrase(path string) (string, error) { return readSecret("passphrase", path) }
