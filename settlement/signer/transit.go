package signer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// TransitKey is an ed25519 key of HashiCorp Vault's transit engine. Vault's policy for the token needs read on
// MOUNT/keys/KEY and update on MOUNT/sign/KEY.
type TransitKey struct {
	URL       string `json:"url"`             // https://vault.example.com:8200
	Mount     string `json:"mount,omitempty"` // empty means transit
	Key       string `json:"key"`
	Version   int    `json:"version"`    // of the key, since a rotated key has another address
	TokenFile string `json:"token_file"` // read for each call, so that an agent may renew it
	Namespace string `json:"namespace,omitempty"`
	CAFile    string `json:"ca_file,omitempty"`
}

type transit struct {
	config TransitKey
	client *http.Client
}

func (c TransitKey) open() (*transit, error) {
	if c.Mount == "" {
		c.Mount = "transit"
	}
	switch {
	case c.Key == "" || c.TokenFile == "":
		return nil, errors.New("vault: key and token_file must be given")
	case c.Version < 1:
		return nil, errors.New("vault: version must be given: the key's version whose address is the treasury's")
	}
	if err := checkRemoteURL("vault: url", c.URL); err != nil {
		return nil, err
	}
	client, err := newRemoteClient(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return &transit{config: c, client: client}, nil
}

func (s *transit) publicKey(ctx context.Context) ([]byte, error) {
	var answer struct {
		Data struct {
			Type string `json:"type"`
			Keys map[string]struct {
				PublicKey string `json:"public_key"`
			} `json:"keys"`
		} `json:"data"`
	}
	if err := s.call(ctx, http.MethodGet, "keys", nil, &answer); err != nil {
		return nil, err
	}
	if answer.Data.Type != "ed25519" {
		return nil, fmt.Errorf("vault's key is of the type %q, not ed25519", answer.Data.Type)
	}
	key, err := base64.StdEncoding.DecodeString(answer.Data.Keys[strconv.Itoa(s.config.Version)].PublicKey)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("vault has no version %d of the key", s.config.Version)
	}
	return key, nil
}

func (s *transit) sign(ctx context.Context, message []byte) ([]byte, error) {
	body, err := json.Marshal(map[string]any{"input": message, "key_version": s.config.Version})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Signature string `json:"signature"`
		} `json:"data"`
	}
	if err := s.call(ctx, http.MethodPost, "sign", body, &answer); err != nil {
		return nil, err
	}
	text, found := strings.CutPrefix(answer.Data.Signature, fmt.Sprintf("vault:v%d:", s.config.Version))
	if !found {
		return nil, errors.New("vault signed with another version of the key")
	}
	return base64.StdEncoding.DecodeString(text)
}

func (s *transit) call(ctx context.Context, method, operation string, body []byte, answer any) error {
	address, err := url.JoinPath(s.config.URL, "v1", s.config.Mount, operation, url.PathEscape(s.config.Key))
	if err != nil {
		return fmt.Errorf("ask vault: %w", err)
	}
	err = callRemote(ctx, s.client, func() (*http.Request, error) {
		token, err := readSecret("token_file", s.config.TokenFile)
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Vault-Request", "true")
		request.Header.Set("X-Vault-Token", token)
		if s.config.Namespace != "" {
			request.Header.Set("X-Vault-Namespace", s.config.Namespace)
		}
		return request, nil
	}, answer)
	if err != nil {
		return fmt.Errorf("ask vault: %w", err)
	}
	return nil
}
