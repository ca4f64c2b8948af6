package signer

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	privateMode     = 0o600
	privateDirMode  = 0o700
	maxKeyFileBytes = 4 << 10
	depositDomain   = "muster deposit wallet v1\x00"
)

// keys are the signer's secrets.
type keys struct {
	treasury    ed25519.PrivateKey
	depositSeed []byte
}

type keyFile struct {
	Treasury []byte `json:"treasury_seed"`
	Deposits []byte `json:"deposit_seed"`
}

// Init makes a key file with fresh keys and returns the treasury's address. It never replaces a file.
func Init(path string) (solana.PublicKey, error) {
	content := keyFile{Treasury: make([]byte, ed25519.SeedSize), Deposits: make([]byte, ed25519.SeedSize)}
	rand.Read(content.Treasury) // crypto/rand.Read never fails
	rand.Read(content.Deposits)
	text, err := json.Marshal(content)
	if err != nil {
		return solana.PublicKey{}, fmt.Errorf("make signer keys: %w", err)
	}
	if err := writeNew(path, append(text, '\n')); err != nil {
		return solana.PublicKey{}, fmt.Errorf("make signer keys: %w", err)
	}
	return Treasury(path)
}

// Treasury returns the treasury's address from a key file.
func Treasury(path string) (solana.PublicKey, error) {
	loaded, err := readKeys(path)
	if err != nil {
		return solana.PublicKey{}, err
	}
	return loaded.address(), nil
}

func readKeys(path string) (*keys, error) {
	text, err := readPrivate(path, maxKeyFileBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no signer key at %s: make one with `musterd signer init`: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("signer key: %w", err)
	}
	var content keyFile
	if json.Unmarshal(text, &content) != nil || len(content.Treasury) != ed25519.SeedSize || len(content.Deposits) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is not a signer key file", path) // the cause could quote a secret
	}
	return &keys{treasury: ed25519.NewKeyFromSeed(content.Treasury), depositSeed: content.Deposits}, nil
}

func (k *keys) address() solana.PublicKey {
	return solana.PublicKeyFromBytes(k.treasury[ed25519.SeedSize:])
}

func (k *keys) deposit(org ids.Org) solana.PublicKey {
	return solana.PublicKeyFromBytes(k.depositKey(org)[ed25519.SeedSize:])
}

func (k *keys) depositKey(org ids.Org) ed25519.PrivateKey {
	mac := hmac.New(sha512.New, k.depositSeed)
	mac.Write([]byte(depositDomain))
	mac.Write(org[:])
	return ed25519.NewKeyFromSeed(mac.Sum(nil)[:ed25519.SeedSize])
}

// readPrivate reads a small file that only its owner, the present user, may read.
func readPrivate(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %#o: others may read or write it; run chmod 600", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text, err
}

// writeNew writes a file that must not exist yet, and makes it durable.
func writeNew(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), privateDirMode); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, privateMode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Sync(), file.Close(), syncDir(filepath.Dir(path)))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
