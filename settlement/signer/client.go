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
	"slices"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

const clientTimeout = 35 * time.Second // longer than the signer takes

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
	return &Client{http: &http.Client{Timeout: clientTimeout, Transport: &http.Transport{DialContext: dial, MaxIdleConns: 4, MaxIdleConnsPerHost: 4}}}
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
	signatures, err := c.one(ctx, request{Message: message, Batch: &batch})
	if err != nil {
		return solana.Signature{}, err
	}
	return signatures[0], nil
}

// Cancel returns the treasury's signature of a message that consumes the nonce value of a batch and moves nothing. It is given
// whether or not the batch's own message was signed: at most one of the two lands. A *Refusal names the rule against it.
func (c *Client) Cancel(ctx context.Context, message []byte, batch ids.Batch) (solana.Signature, error) {
	signatures, err := c.one(ctx, request{Message: message, Cancel: batch})
	if err != nil {
		return solana.Signature{}, err
	}
	return signatures[0], nil
}

// Sweep returns the signatures of a message that moves a deposit to the treasury, in the order in which the transaction has them:
// the treasury's, and the deposit wallet's. A *Refusal names the rule against it.
func (c *Client) Sweep(ctx context.Context, message []byte, sweep Sweep) ([2]solana.Signature, error) {
	signatures, err := c.one(ctx, request{Message: message, Sweep: &sweep})
	if err != nil {
		return [2]solana.Signature{}, err
	}
	return [2]solana.Signature(signatures), nil
}

// SignAll asks for many batches at once, which share one sync of the journal for every 128 of them, and returns an answer to
// each: a signature or a refusal. After an error some may have been signed; asking again is safe, and gets the same signatures.
func (c *Client) SignAll(ctx context.Context, orders []Order) ([]Answer, error) {
	answers := make([]Answer, 0, len(orders))
	for part := range slices.Chunk(orders, maxRequests) {
		requests := make([]request, len(part))
		for i := range part {
			requests[i] = request{Message: part[i].Message, Batch: &part[i].Batch}
		}
		signed, err := c.ask(ctx, requests)
		if err != nil {
			return nil, err
		}
		answers = append(answers, signed...)
	}
	return answers, nil
}

func (c *Client) one(ctx context.Context, r request) ([]solana.Signature, error) {
	answers, err := c.ask(ctx, []request{r})
	if err != nil {
		return nil, err
	}
	if answers[0].Refusal != nil {
		return nil, answers[0].Refusal
	}
	return answers[0].Signatures, nil
}

// ask returns an answer to each request, and each with all its signatures or a refusal.
func (c *Client) ask(ctx context.Context, requests []request) ([]Answer, error) {
	var response signResponse
	if err := c.call(ctx, http.MethodPost, pathSign, signRequest{Requests: requests}, &response); err != nil {
		return nil, err
	}
	if len(response.Answers) != len(requests) {
		return nil, fmt.Errorf("%w: it gave %d answers to %d requests", ErrUnavailable, len(response.Answers), len(requests))
	}
	for i := range requests {
		answer, want := response.Answers[i], requests[i].signers()
		if n := len(answer.Signatures); answer.Refusal == nil && n != want {
			return nil, fmt.Errorf("%w: it gave %d signatures instead of %d", ErrUnavailable, n, want)
		}
	}
	return response.Answers, nil
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
	default:
		var problem failure
		_ = json.Unmarshal(text, &problem) // an empty message is shown as such
		return fmt.Errorf("%w: status %d: %s", ErrUnavailable, status, problem.Message)
	}
}
