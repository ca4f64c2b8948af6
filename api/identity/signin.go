package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/api/identity/identitydb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	// NonceLifetime is how long a sign-in message can be signed and returned.
	NonceLifetime = 5 * time.Minute
	// SessionIdle ends a session that is not used.
	SessionIdle = 12 * time.Hour
	// SessionLifetime ends any session.
	SessionLifetime = 7 * 24 * time.Hour

	secretBytes      = 32
	messageVersion   = "1"
	nonceLine        = "\nNonce: "
	maxMessageBytes  = 2048
	signInTimeLayout = "2006-01-02T15:04:05Z"
)

// SignInConfig is the part of the sign-in message that is this Muster's own. It comes from the configuration, never from a
// request.
type SignInConfig struct {
	Domain    string // host and port as the wallet sees the page's origin: "localhost:8080"
	URI       string // the console's address
	ChainID   string // "solana:localnet"
	Statement string
}

// Message holds the fields that a wallet signs.
type Message struct {
	SignInConfig
	Address   string
	Nonce     string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// Text is the message as Sign in with Solana spells it: what a wallet makes of the fields for solana:signIn, and what
// signMessage is given where a wallet lacks that.
func (m Message) Text() string {
	return m.Domain + " wants you to sign in with your Solana account:\n" + m.Address + "\n\n" +
		m.Statement + "\n\n" +
		"URI: " + m.URI + "\n" +
		"Version: " + messageVersion + "\n" +
		"Chain ID: " + m.ChainID +
		nonceLine + m.Nonce + "\n" +
		"Issued At: " + m.IssuedAt.UTC().Format(signInTimeLayout) + "\n" +
		"Expiration Time: " + m.ExpiresAt.UTC().Format(signInTimeLayout)
}

// Nonce starts a sign-in: it returns the fields to sign and the secret that binds them to the browser.
func (s *Service) Nonce(ctx context.Context, address string) (message Message, browser string, err error) {
	if _, err := ParseWallet("body.address", address); err != nil {
		return Message{}, "", err
	}
	nonce, browser := rand.Text(), newSecret()
	row, err := s.queries.InsertNonce(ctx, s.db, hashOf(nonce), hashOf(browser), address, NonceLifetime)
	if err != nil {
		return Message{}, "", fmt.Errorf("insert nonce: %w", err)
	}
	return Message{
		SignInConfig: s.signIn, Address: address, Nonce: nonce, IssuedAt: row.IssuedAt, ExpiresAt: row.ExpiresAt,
	}, browser, nil
}

// Proof is what comes back from the wallet.
type Proof struct {
	Address       string
	SignedMessage []byte
	Signature     []byte
	Browser       string // the secret that Nonce returned
}

// errProof is the one answer to every proof that fails, so that it teaches nothing.
var errProof = errs.New(errs.Unauthenticated, "the sign-in was not accepted: it may have expired, been used, or been signed for another site; start again")

// SignIn checks a proof and starts a session. The nonce is spent by the attempt, also by one that fails. A wallet that was
// never seen before becomes a user; a user without any organisation gets a personal one.
func (s *Service) SignIn(ctx context.Context, proof Proof) (Principal, string, error) {
	key, err := ParseWallet("body.address", proof.Address)
	if err != nil {
		return Principal{}, "", errProof
	}
	message, err := s.spendNonce(ctx, proof)
	if err != nil {
		return Principal{}, "", err
	}
	text := []byte(message.Text())
	if !bytes.Equal(text, proof.SignedMessage) || !verify(key, text, proof.Signature) {
		return Principal{}, "", errProof
	}
	return s.startSession(ctx, proof.Address)
}

// spendNonce finds the nonce that the signed message names, uses it up, and rebuilds the message around it.
func (s *Service) spendNonce(ctx context.Context, proof Proof) (Message, error) {
	nonce, ok := nonceIn(proof.SignedMessage)
	if !ok || proof.Browser == "" {
		return Message{}, errProof
	}
	row, err := s.queries.SpendNonce(ctx, s.db, hashOf(nonce), hashOf(proof.Browser), proof.Address)
	if errors.Is(err, pgx.ErrNoRows) {
		return Message{}, errProof
	}
	if err != nil {
		return Message{}, fmt.Errorf("spend nonce: %w", err)
	}
	return Message{
		SignInConfig: s.signIn, Address: proof.Address, Nonce: nonce, IssuedAt: row.IssuedAt, ExpiresAt: row.ExpiresAt,
	}, nil
}

// nonceIn takes only the nonce from the signed bytes; nothing else of them is used but to be compared.
func nonceIn(signed []byte) (string, bool) {
	if len(signed) > maxMessageBytes {
		return "", false
	}
	_, rest, found := strings.Cut(string(signed), nonceLine)
	nonce, _, _ := strings.Cut(rest, "\n")
	return nonce, found && nonce != ""
}

func (s *Service) startSession(ctx context.Context, wallet string) (Principal, string, error) {
	token := newSecret()
	var p Principal
	err := pgx.BeginFunc(ctx, s.db, func(tx pgx.Tx) error {
		user, err := s.queries.UpsertUser(ctx, tx, ids.New[ids.User](), wallet, "")
		if err != nil {
			return fmt.Errorf("upsert user: %w", err)
		}
		p = Principal{User: user.ID, Name: user.Name, Wallet: wallet, Session: ids.New[ids.Session]()}
		if _, err := s.queries.InsertSession(ctx, tx, p.Session, hashOf(token), p.User, SessionLifetime); err != nil {
			return fmt.Errorf("insert session: %w", err)
		}
		return s.ensureOrganisation(ctx, tx, &p)
	})
	if err != nil {
		return Principal{}, "", err
	}
	return p, token, nil
}

// ensureOrganisation fills in the memberships, founding a personal organisation where there are none. The user's row is locked
// so that two first sign-ins at once found only one.
func (s *Service) ensureOrganisation(ctx context.Context, tx pgx.Tx, p *Principal) error {
	if _, err := s.queries.LockUser(ctx, tx, p.User); err != nil {
		return fmt.Errorf("lock user: %w", err)
	}
	var err error
	if p.Memberships, err = s.memberships(ctx, tx, p.User); err != nil || len(p.Memberships) > 0 {
		return err
	}
	// The wallet has just signed, so it may be the address that earnings go to.
	founded, err := s.found(ctx, tx, p.User, p.Wallet[:4]+"..."+p.Wallet[len(p.Wallet)-4:], &p.Wallet)
	if err != nil {
		return err
	}
	p.Memberships = []Membership{founded}
	return nil
}

// AuthenticateSession finds the principal of a session's token.
func (s *Service) AuthenticateSession(ctx context.Context, token string) (Principal, error) {
	row, err := s.queries.UseSession(ctx, s.db, hashOf(token), SessionIdle)
	if errors.Is(err, pgx.ErrNoRows) {
		return Principal{}, errs.New(errs.Unauthenticated, "the session has ended: sign in again")
	}
	if err != nil {
		return Principal{}, fmt.Errorf("use session: %w", err)
	}
	p := Principal{
		User: row.UserID, Name: row.Name, Wallet: row.WalletAddress, Session: row.ID,
		SignedAgo: time.Duration(row.SignedAgoS * float64(time.Second)),
	}
	p.Memberships, err = s.memberships(ctx, s.db, p.User)
	return p, err
}

// SignOut ends a session. Ending it again changes nothing.
func (s *Service) SignOut(ctx context.Context, session ids.Session) error {
	if err := s.queries.RevokeSession(ctx, s.db, session); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}

// Recheck reads a principal's present rights, for connections that outlive the request they were admitted by. It is no use of
// the session: an open page alone does not keep it alive. It answers errs.Unauthenticated once the session or key has ended.
func (s *Service) Recheck(ctx context.Context, p Principal) (Principal, error) {
	live, err := s.isLive(ctx, p)
	if err != nil {
		return Principal{}, fmt.Errorf("recheck: %w", err)
	}
	if !live {
		return Principal{}, errs.New(errs.Unauthenticated, "the session or key has ended")
	}
	all, err := s.memberships(ctx, s.db, p.User)
	if err != nil {
		return Principal{}, err
	}
	if p.IsKey() {
		all = onlyOrg(all, p.Memberships)
	}
	p.Memberships = all
	return p, nil
}

func (s *Service) isLive(ctx context.Context, p Principal) (bool, error) {
	if p.IsKey() {
		return s.queries.KeyIsLive(ctx, s.db, p.Key)
	}
	return s.queries.SessionIsLive(ctx, s.db, p.Session, SessionIdle)
}

func (s *Service) memberships(ctx context.Context, db identitydb.DBTX, user ids.User) ([]Membership, error) {
	rows, err := s.queries.Memberships(ctx, db, user, maxMemberships)
	if err != nil {
		return nil, fmt.Errorf("read memberships: %w", err)
	}
	memberships := make([]Membership, len(rows))
	for i, row := range rows {
		memberships[i] = Membership{Org: row.OrgID, Name: row.Name, Platform: row.Platform, Roles: toRoles(row.Roles)}
		if row.PayoutAddress != nil {
			memberships[i].PayoutAddress = *row.PayoutAddress
		}
	}
	return memberships, nil
}

// newSecret makes 256 random bits for a cookie.
func newSecret() string {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // never fails, by its documentation
	return base64.RawURLEncoding.EncodeToString(raw)
}
