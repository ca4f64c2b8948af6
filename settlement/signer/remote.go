package signer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gagliardetto/solana-go"
)

// Limits of talking to a service that holds the treasury's key.
const (
	maxRemoteFileBytes = 16 << 10
	maxRemoteBytes     = 64 << 10
	remoteTimeout      = 5 * time.Second
	remoteTries        = 3
	remotePause        = 100 * time.Millisecond // before the second try, twice that before the third
	remoteAtOnce       = 16
)

// RemoteKey is a file that says which service holds the treasury's key: exactly one of the two.
type RemoteKey struct {
	Address solana.PublicKey `json:"address"` // the treasury's: the key that the service has must be this one
	Vault   *TransitKey      `json:"vault,omitempty"`
	KMS     *KMSKey          `json:"aws_kms,omitempty"`
}

// service signs for a remote key.
type service interface {
	publicKey(ctx context.Context) ([]byte, error)
	sign(ctx context.Context, message []byte) ([]byte, error)
}

// remoteKey is a key that a service holds.
type remoteKey struct {
	address solana.PublicKey
	service service
}

func readRemote(path string) (RemoteKey, error) {
	var config RemoteKey
	text, err := readPrivate(path, maxRemoteFileBytes)
	if err != nil {
		return config, fmt.Errorf("remote key: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return config, fmt.Errorf("remote key %s: %w", path, err)
	}
	return config, nil
}

// folders are those of the files that the configuration names. Such files may be replaced while the signer runs.
func (c *RemoteKey) folders() (list []string) {
	var files []string
	if c.Vault != nil {
		files = append(files, c.Vault.TokenFile, c.Vault.CAFile)
	}
	if c.KMS != nil {
		files = append(files, c.KMS.CredentialsFile, c.KMS.CAFile)
	}
	for _, file := range files {
		if file != "" {
			list = append(list, filepath.Dir(file))
		}
	}
	return list
}

func openRemote(ctx context.Context, path string) (*remoteKey, error) {
	config, err := readRemote(path)
	if err != nil {
		return nil, err
	}
	key, err := config.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("remote key %s: %w", path, err)
	}
	return key, nil
}

func (c *RemoteKey) open(ctx context.Context) (*remoteKey, error) {
	key := &remoteKey{address: c.Address}
	var err error
	switch {
	case c.Address.IsZero():
		return nil, errors.New("address is missing: name the treasury's address, so that no other key is used by mistake")
	case (c.Vault == nil) == (c.KMS == nil):
		return nil, errors.New("exactly one of vault and aws_kms must be given")
	case c.Vault != nil:
		key.service, err = c.Vault.open()
	default:
		key.service, err = c.KMS.open()
	}
	if err != nil {
		return nil, err
	}
	found, err := key.service.publicKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the public key: %w", err)
	}
	if !bytes.Equal(found, c.Address[:]) {
		return nil, fmt.Errorf("the service's key is not that of the treasury %s", c.Address)
	}
	return key, nil
}

// Address implements Key.
func (k *remoteKey) Address() solana.PublicKey { return k.address }

// Sign implements Key. What the service answers is verified.
func (k *remoteKey) Sign(ctx context.Context, message []byte) (solana.Signature, error) {
	signature, err := k.service.sign(ctx, message)
	if err != nil {
		return solana.Signature{}, fmt.Errorf("sign with the remote key: %w", err)
	}
	if len(signature) != ed25519.SignatureSize || !ed25519.Verify(k.address[:], message, signature) {
		return solana.Signature{}, errors.New("sign with the remote key: the service's signature does not verify")
	}
	return solana.SignatureFromBytes(signature), nil
}

// AtOnce implements Key.
func (k *remoteKey) AtOnce() int { return remoteAtOnce }

// newRemoteClient makes a client that follows no redirects and trusts the system's authorities, or those of a file.
func newRemoteClient(caFile string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca_file %s holds no certificate", caFile)
		}
	}
	return &http.Client{
		Timeout:       remoteTimeout,
		Transport:     &http.Transport{TLSClientConfig: config, MaxConnsPerHost: remoteAtOnce, MaxIdleConnsPerHost: remoteAtOnce},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// checkRemoteURL allows plain HTTP to this machine only.
func checkRemoteURL(name, text string) error {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || parsed.User != nil || parsed.RawQuery != "" {
		return fmt.Errorf("%s is not an address of the form https://host", name)
	}
	ip := net.ParseIP(parsed.Hostname())
	if parsed.Scheme == "https" || (parsed.Scheme == "http" && (parsed.Hostname() == "localhost" || (ip != nil && ip.IsLoopback()))) {
		return nil
	}
	return fmt.Errorf("%s must begin with https://", name)
}

// readSecret reads one line from a private file.
func readSecret(name, path string) (string, error) {
	text, err := readPrivate(path, maxRemoteFileBytes)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s %s is empty", name, path)
	}
	return secret, nil
}

// statusError is an answer that is none. Its text is the service's own, cut short.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %.300s", e.status, e.text) }

// callRemote sends a request, made anew for each try, and reads JSON. Signing has no effect that a repetition could do harm to.
func callRemote(ctx context.Context, client *http.Client, build func() (*http.Request, error), answer any) error {
	var err error
	for try := range remoteTries {
		if try > 0 && !pause(ctx, remotePause<<(try-1)) {
			break
		}
		var request *http.Request
		if request, err = build(); err != nil {
			return err
		}
		var retry bool
		if retry, err = callOnce(client, request, answer); !retry {
			return err
		}
	}
	return err
}

func callOnce(client *http.Client, request *http.Request, answer any) (retry bool, err error) {
	response, err := client.Do(request)
	if err != nil {
		return true, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxRemoteBytes))
	switch {
	case err != nil:
		return true, err
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= http.StatusInternalServerError || isThrottled(text):
		return true, &statusError{response.StatusCode, string(text)}
	case response.StatusCode != http.StatusOK:
		return false, &statusError{response.StatusCode, string(text)}
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return false, fmt.Errorf("the answer cannot be read: %w", err)
	}
	return false, nil
}

// isThrottled recognises KMS's way of saying 429.
func isThrottled(text []byte) bool {
	var problem struct {
		Type string `json:"__type"`
	}
	return json.Unmarshal(text, &problem) == nil && strings.HasSuffix(problem.Type, "ThrottlingException")
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
