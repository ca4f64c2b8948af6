package signer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const kmsAlgorithm = "ED25519_SHA_512"

// KMSKey is a key of AWS KMS, of the spec ECC_NIST_EDWARDS25519. The credentials' policy needs kms:Sign and kms:GetPublicKey.
type KMSKey struct {
	Region          string `json:"region"`
	KeyID           string `json:"key_id"`             // an id or ARN
	CredentialsFile string `json:"credentials_file"`   // read for each call, so that short-lived ones can be renewed
	Endpoint        string `json:"endpoint,omitempty"` // empty means https://kms.REGION.amazonaws.com
	CAFile          string `json:"ca_file,omitempty"`
}

// awsCredentials are the content of a credentials file.
type awsCredentials struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	SessionToken    string `json:"session_token,omitempty"`
}

type kms struct {
	config KMSKey
	client *http.Client
	now    func() time.Time
}

func (c KMSKey) open() (*kms, error) {
	if c.Region == "" || c.KeyID == "" || c.CredentialsFile == "" {
		return nil, errors.New("aws_kms: region, key_id and credentials_file must be given")
	}
	if c.Endpoint == "" {
		c.Endpoint = "https://kms." + c.Region + ".amazonaws.com"
	}
	if err := checkRemoteURL("aws_kms: endpoint", c.Endpoint); err != nil {
		return nil, err
	}
	client, err := newRemoteClient(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("aws_kms: %w", err)
	}
	return &kms{config: c, client: client, now: time.Now}, nil
}

func (s *kms) publicKey(ctx context.Context) ([]byte, error) {
	var answer struct {
		PublicKey []byte
		KeySpec   string
		KeyUsage  string
	}
	if err := s.call(ctx, "GetPublicKey", map[string]any{"KeyId": s.config.KeyID}, &answer); err != nil {
		return nil, err
	}
	if answer.KeySpec != "ECC_NIST_EDWARDS25519" || answer.KeyUsage != "SIGN_VERIFY" {
		return nil, fmt.Errorf("the key in KMS is of the spec %q for %q, not ECC_NIST_EDWARDS25519 for SIGN_VERIFY", answer.KeySpec, answer.KeyUsage)
	}
	parsed, err := x509.ParsePKIXPublicKey(answer.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key in KMS is a %T", parsed)
	}
	return key, nil
}

func (s *kms) sign(ctx context.Context, message []byte) ([]byte, error) {
	var answer struct {
		Signature        []byte
		SigningAlgorithm string
	}
	err := s.call(ctx, "Sign", map[string]any{
		"KeyId": s.config.KeyID, "Message": message, "MessageType": "RAW", "SigningAlgorithm": kmsAlgorithm,
	}, &answer)
	if err == nil && answer.SigningAlgorithm != kmsAlgorithm {
		err = fmt.Errorf("KMS signed by %q", answer.SigningAlgorithm)
	}
	return answer.Signature, err
}

func (s *kms) call(ctx context.Context, operation string, input, answer any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return fmt.Errorf("ask KMS: %w", err)
	}
	err = callRemote(ctx, s.client, func() (*http.Request, error) {
		credentials, err := s.credentials()
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.config.Endpoint+"/", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/x-amz-json-1.1")
		request.Header.Set("X-Amz-Target", "TrentService."+operation)
		signV4(request, body, credentials, s.config.Region, "kms", s.now())
		return request, nil
	}, answer)
	if err != nil {
		return fmt.Errorf("ask KMS: %w", err)
	}
	return nil
}

func (s *kms) credentials() (awsCredentials, error) {
	text, err := readSecret("credentials_file", s.config.CredentialsFile)
	if err != nil {
		return awsCredentials{}, err
	}
	var credentials awsCredentials
	if json.Unmarshal([]byte(text), &credentials) != nil || credentials.AccessKeyID == "" || credentials.SecretAccessKey == "" {
		return awsCredentials{}, fmt.Errorf("credentials_file %s must be JSON with access_key_id and secret_access_key", s.config.CredentialsFile)
	}
	return credentials, nil
}
