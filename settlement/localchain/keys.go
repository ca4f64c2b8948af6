package localchain

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gagliardetto/solana-go"
)

const (
	privateMode    = 0o600
	privateDirMode = 0o700
)

// loadKey reads a key in solana-keygen's format, an array of the 64 bytes of seed and public key, and makes it if it is missing.
func loadKey(path string) (solana.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return parseKey(path, text)
}

func parseKey(path string, text []byte) (solana.PrivateKey, error) {
	var numbers []uint8
	var wide []int
	if err := json.Unmarshal(text, &wide); err != nil || len(wide) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%s is not a key in solana-keygen's format", path)
	}
	for _, number := range wide {
		if number < 0 || number > 255 {
			return nil, fmt.Errorf("%s is not a key in solana-keygen's format", path)
		}
		numbers = append(numbers, uint8(number))
	}
	key := ed25519.NewKeyFromSeed(numbers[:ed25519.SeedSize])
	if string(key) != string(numbers) {
		return nil, fmt.Errorf("%s holds a public key that is not its private key's", path)
	}
	return solana.PrivateKey(key), nil
}

func makeKey(path string) (solana.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	numbers := make([]int, len(key)) // a byte slice would become base64
	for i, b := range key {
		numbers[i] = int(b)
	}
	text, err := json.Marshal(numbers)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), privateDirMode); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	// A crash leaves the whole key or none: an address that was used must not be lost.
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text, privateMode); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return solana.PrivateKey(key), nil
}
