package signer

import (
	"cmp"
	"context"
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
	"runtime"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	privateMode     = 0o600
	privateDirMode  = 0o700
	maxKeyFileBytes = 16 << 10
	depositDomain   = "muster deposit wallet v1\x00"

	credentialsVariable = "CREDENTIALS_DIRECTORY" // set by systemd
)

// Key is the treasury's key, wherever it is kept.
type Key interface {
	Address() solana.PublicKey
	// Sign returns a signature that verifies. For the same message it is the same one: Ed25519 has no randomness.
	Sign(ctx context.Context, message []byte) (solana.Signature, error)
	// AtOnce is how many messages it pays to sign at the same time.
	AtOnce() int
}

// keys are the signer's secrets. The seed of the deposit wallets is always in the key file: there is a wallet per customer, more than
// remote services have keys, and what arrives there is swept to the treasury soon.
type keys struct {
	treasury    Key
	depositSeed []byte
}

type keyFile struct {
	Treasury []byte `json:"treasury_seed,omitempty"` // absent where the treasury's key is remote
	Deposits []byte `json:"deposit_seed"`
}

// KeyFile says how a key file is made.
type KeyFile struct {
	Passphrase   string // encrypts the file; empty leaves it as it is
	DepositsOnly bool   // the treasury's key is remote

	work int // of scrypt, as a power of two; 0 means workFactor
}

// Init makes a key file with fresh keys, not encrypted, and returns the treasury's address. It never replaces a file.
func Init(path string) (solana.PublicKey, error) { return KeyFile{}.Init(path) }

// Treasury returns the treasury's address from a key file that is not encrypted.
func Treasury(path string) (solana.PublicKey, error) {
	loaded, err := readKeys(path, "")
	if err != nil {
		return solana.PublicKey{}, err
	}
	return loaded.treasury.Address(), nil
}

// Init makes a key file with fresh keys and returns the treasury's address, if its key is among them. It never replaces a file.
func (f KeyFile) Init(path string) (solana.PublicKey, error) {
	content := keyFile{Deposits: make([]byte, ed25519.SeedSize)}
	rand.Read(content.Deposits) // crypto/rand.Read never fails
	if !f.DepositsOnly {
		content.Treasury = make([]byte, ed25519.SeedSize)
		rand.Read(content.Treasury)
	}
	text, err := json.Marshal(content)
	if err != nil {
		return solana.PublicKey{}, fmt.Errorf("make signer keys: %w", err)
	}
	text = append(text, '\n')
	if f.Passphrase != "" {
		if text, err = seal(text, f.Passphrase, cmp.Or(f.work, workFactor)); err != nil {
			return solana.PublicKey{}, fmt.Errorf("make signer keys: %w", err)
		}
	}
	if err := writeNew(path, text); err != nil {
		return solana.PublicKey{}, fmt.Errorf("make signer keys: %w", err)
	}
	if f.DepositsOnly {
		return solana.PublicKey{}, nil
	}
	return newLocalKey(content.Treasury).Address(), nil
}

// readKeys reads a key file. Its treasury is nil if the file is for deposit wallets only.
func readKeys(path, passphrase string) (*keys, error) {
	text, err := readPrivate(path, maxKeyFileBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no signer key at %s: make one with `musterd signer init`: %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("signer key: %w", err)
	}
	if isSealed(text) {
		if text, err = unseal(text, passphrase); err != nil {
			return nil, fmt.Errorf("signer key %s: %w", path, err)
		}
	}
	var content keyFile
	if json.Unmarshal(text, &content) != nil || len(content.Deposits) != ed25519.SeedSize ||
		(content.Treasury != nil && len(content.Treasury) != ed25519.SeedSize) {
		return nil, fmt.Errorf("%s is not a signer key file", path) // the cause could quote a secret
	}
	loaded := &keys{depositSeed: content.Deposits}
	if content.Treasury != nil {
		loaded.treasury = newLocalKey(content.Treasury)
	}
	return loaded, nil
}

// loadKeys reads the key file and, where the treasury's key is remote, finds it.
func loadKeys(ctx context.Context, options Options) (*keys, error) {
	loaded, err := readKeys(options.KeyFile, options.Passphrase)
	if err != nil {
		return nil, err
	}
	switch {
	case options.RemoteKeyFile == "" && loaded.treasury == nil:
		return nil, fmt.Errorf("%s holds no treasury key: name the file that says where it is", options.KeyFile)
	case options.RemoteKeyFile == "":
		return loaded, nil
	case loaded.treasury != nil:
		return nil, fmt.Errorf("%s holds a treasury key, and %s names a remote one: which of them is meant?", options.KeyFile, options.RemoteKeyFile)
	}
	loaded.treasury, err = openRemote(ctx, options.RemoteKeyFile)
	return loaded, err
}

// localKey is a key in this process's memory.
type localKey ed25519.PrivateKey

func newLocalKey(seed []byte) localKey { return localKey(ed25519.NewKeyFromSeed(seed)) }

// Address implements Key.
func (k localKey) Address() solana.PublicKey { return solana.PublicKeyFromBytes(k[ed25519.SeedSize:]) }

// Sign implements Key.
func (k localKey) Sign(_ context.Context, message []byte) (solana.Signature, error) {
	return solana.SignatureFromBytes(ed25519.Sign(ed25519.PrivateKey(k), message)), nil
}

// AtOnce implements Key.
func (k localKey) AtOnce() int { return runtime.GOMAXPROCS(0) }

func (k *keys) deposit(org ids.Org) solana.PublicKey { return k.depositKey(org).Address() }

func (k *keys) depositKey(org ids.Org) localKey {
	mac := hmac.New(sha512.New, k.depositSeed)
	mac.Write([]byte(depositDomain))
	mac.Write(org[:])
	return newLocalKey(mac.Sum(nil)[:ed25519.SeedSize])
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
	if info.Mode().Perm()&forbiddenBits(path) != 0 {
		return nil, fmt.Errorf("%s has mode %#o: others may read or write it; run chmod 600", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text, err
}

// forbiddenBits are those that a private file's mode must not have. Credentials that systemd hands over may be group-readable: it
// lets the service read them by an access list, which shows so, in a folder that nobody else can enter.
func forbiddenBits(path string) os.FileMode {
	if dir := os.Getenv(credentialsVariable); dir != "" && filepath.Dir(filepath.Clean(path)) == filepath.Clean(dir) {
		return 0o037
	}
	return 0o077
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
