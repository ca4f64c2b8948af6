// Package seal keeps small secrets, such as Ray tokens, unreadable in the database: AES-256-GCM with one key of the control
// plane, a random nonce before each ciphertext.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// Box seals and unseals. It is safe for concurrent use.
type Box struct{ aead cipher.AEAD }

// New makes a box from a key of KeySize bytes.
func New(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("the sealing key has %d bytes, it must have %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead: aead}, nil
}

// NewKey makes a random key.
func NewKey() []byte {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails, by its documentation
	return key
}

// Seal encrypts a secret.
func (b *Box) Seal(secret string) []byte { return b.aead.Seal(nil, nil, []byte(secret), nil) } //nolint:gosec // the AEAD makes a random nonce of its own

// Unseal decrypts what Seal made with the same key. The error tells no more than that it failed.
func (b *Box) Unseal(sealed []byte) (string, error) {
	secret, err := b.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return "", errors.New("a stored secret cannot be unsealed: was the control plane's sealing key changed?")
	}
	return string(secret), nil
}
