// Package jointoken is the text of a join token, which the control plane writes and a host reads, and the names that both sides
// of the agent protocol go by.
//
// A token carries a secret, which buys one enrolment, and a pin of the control plane's certificate authority, so that a host
// that never spoke to the control plane knows whom to trust with the secret. A checksum tells a damaged copy from a wrong one.
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/url"
	"strings"

	"github.com/muster-gpu/muster/internal/ids"
)

// GatewayURI is the name in the certificate of the control plane's gateway. Its private authority makes host names, which an
// owner may reach it by in many ways, unnecessary.
const GatewayURI = "spiffe://muster/gateway"

const (
	prefix         = "mjt_"
	hostURIPrefix  = "spiffe://muster/host/"
	secretBytes    = 20
	checksumBytes  = 4
	maxTextLength  = 256
	decodedBytes   = secretBytes + sha256.Size + checksumBytes
	pinEnd         = secretBytes + sha256.Size
	lowerAlphabet  = "abcdefghijklmnopqrstuvwxyz234567"
	malformedToken = "the join token is damaged or incomplete: copy all of it, from mjt_ to its end"
)

var encoding = base32.NewEncoding(lowerAlphabet).WithPadding(base32.NoPadding)

// ErrMalformed is returned by Parse for text that is not a whole join token.
var ErrMalformed = errors.New(malformedToken)

// Pin is the SHA-256 of a certificate's public key information.
type Pin [sha256.Size]byte

// PinOf returns the pin of a certificate.
func PinOf(certificate *x509.Certificate) Pin {
	return sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
}

// Token is what the text of a join token says.
type Token struct {
	secret [secretBytes]byte
	pin    Pin
}

// New makes a token with a fresh secret.
func New(pin Pin) Token {
	token := Token{pin: pin}
	_, _ = rand.Read(token.secret[:]) // never fails: crypto/rand ends the process instead
	return token
}

// Parse reads the text of a token. It returns ErrMalformed for anything else.
func Parse(text string) (Token, error) {
	text = strings.TrimSpace(text)
	body, found := strings.CutPrefix(text, prefix)
	if !found || len(text) > maxTextLength {
		return Token{}, ErrMalformed
	}
	raw, err := encoding.DecodeString(body)
	if err != nil || len(raw) != decodedBytes {
		return Token{}, ErrMalformed
	}
	var token Token
	copy(token.secret[:], raw)
	copy(token.pin[:], raw[secretBytes:])
	// This checks the sum, and also the last character's unused bits: a token has one text only.
	if token.Text() != text {
		return Token{}, ErrMalformed
	}
	return token, nil
}

// Text returns the token as a person copies it. It holds the secret.
func (t Token) Text() string {
	raw := append(t.secret[:], t.pin[:]...)
	raw = binary.BigEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw))
	return prefix + encoding.EncodeToString(raw)
}

// Pin returns the pin of the authority that issued the token.
func (t Token) Pin() Pin { return t.pin }

// Hash returns what is stored of the token.
func (t Token) Hash() [sha256.Size]byte { return sha256.Sum256(t.secret[:]) }

// String hides the secret from logs.
func (t Token) String() string { return prefix + "…" }

// HostURI returns the name in a host's certificate.
func HostURI(host ids.Host) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: "muster", Path: "/host/" + host.String()}
}

// HostOf returns the host that a certificate names, or false if it names none.
func HostOf(certificate *x509.Certificate) (ids.Host, bool) {
	if len(certificate.URIs) != 1 {
		return ids.Host{}, false
	}
	text, found := strings.CutPrefix(certificate.URIs[0].String(), hostURIPrefix)
	if !found || text == "" {
		return ids.Host{}, false
	}
	var host ids.Host
	err := host.UnmarshalText([]byte(text))
	return host, err == nil
}

// IsGateway reports whether a certificate names the control plane's gateway.
func IsGateway(certificate *x509.Certificate) bool {
	return len(certificate.URIs) == 1 && certificate.URIs[0].String() == GatewayURI
}
