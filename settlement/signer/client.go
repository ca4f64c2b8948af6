package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

const clientTimeout = 15 * time.Second

// ErrUnavailable means that the signer did not answer, or could not write its journal. Whether it signed is not known; asking
// again with the same request is safe.
var ErrUnavailable = errors.New("the signer does not answer")

// Client asks a signer on its socket. It is safe for concurrent use.
type Client struct{ http *http.Client }

// NewClient makes a client of the signer on a unix socket. It connects with the first request.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{http: &http.Client{Timeout: clientTimeout, Transport: &http.Transport{DialContext: dial, MaxIdleConns: 4}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Addresses returns the treasury's addresses and what the policy allows.
func (c *Client) Addresses(ctx context.Context) (Addresses, error) {
	var answer Addresses
	err := c.call(ctx, http.MethodGet, pathAddresses, nil, &answer)
	return answer, err
}

// DepositAddress returns the wallet that an organisation deposits to. It is the same for ever.
func (c *Client) DepositAddress(ctx context.Context, org ids.Org) (solana.PublicKey, error) {
	var answer depositResponse
	err := c.call(ctx, http.MethodGet, pathDeposit+org.String(), nil, &answer)
	return answer.Address, err
}

// Sign returns the treasury's signature of a message that pays a batch. A *Refusal names the rule against it.
func (c *Client) Sign(ctx context.Context, message []byte, batch Batch) (solana.Signature, error) {
	var answer signResponse
	err := c.call(ctx, http.MethodPost, pathSign, signRequest{Message: message, Batch: batch}, &answer)
	return answer.Signature, err
}

func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("ask the signer: %w", err)
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://signer"+path, content)
	if err != nil {
		return fmt.Errorf("ask the signer: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return decodeAnswer(response.StatusCode, text, answer)
}

func decodeAnswer(status int, text []byte, answer any) error {
	switch status {
	case http.StatusOK:
		if err := json.Unmarshal(text, answer); err != nil {
			return fmt.Errorf("%w: its answer cannot be read: %w", ErrUnavailable, err)
		}
		return nil
	case http.StatusUnprocessableEntity:
		refusal := &Refusal{}
		if err := json.Unmarshal(text, refusal); err != nil || refusal.Rule == "" {
			return fmt.Errorf("%w: its refusal cannot be read", ErrUnavailable)
		}
		return refusal
	default:
		var problem failure
		_ = json.Unmarshal(text, &problem) // an empty message is shown as such
		return fmt.Errorf("%w: status %d: %s", ErrUnavailable, status, problem.Message)
	}
}
