package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
)

const (
	// HostCertificateLifetime bounds how long a stolen certificate is of use.
	HostCertificateLifetime = 4 * time.Hour

	authorityLifetime         = 10 * 365 * 24 * time.Hour
	gatewayLifetime           = 24 * time.Hour
	clockSkew                 = 5 * time.Minute // certificates are valid this long before they are made
	authorityFile             = "fleet-authority.pem"
	serialBits                = 127
	maxCertificateRequestSize = 8 << 10
)

// Authority is the private certificate authority of the fleet. It is safe for concurrent use.
type Authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pool        *x509.CertPool
}

// OpenAuthority loads the authority kept in a directory, or makes it there. Processes that open the same directory at once
// agree on one.
func OpenAuthority(dir string) (*Authority, error) {
	path := filepath.Join(dir, authorityFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createAuthority(dir, path); err == nil {
			content, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the fleet's certificate authority: %w", err)
	}
	authority, err := parseAuthority(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return authority, nil
}

// createAuthority writes a whole file and links it to its name, which fails if another process was first; that one's then counts.
func createAuthority(dir, path string) error {
	content, err := newAuthority(time.Now())
	if err != nil {
		return err
	}
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, "."+authorityFile) // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) //nolint:errcheck // what remains is harmless and private
	_, err = temporary.Write(content)
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err = os.Link(temporary.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func newAuthority(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: "Muster fleet authority"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	content := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return append(content, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

func parseAuthority(content []byte) (*Authority, error) {
	keyBlock, rest := pem.Decode(content)
	certificateBlock, _ := pem.Decode(rest)
	if keyBlock == nil || certificateBlock == nil {
		return nil, errors.New("does not hold a private key and a certificate in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("holds a key of type %T, not ECDSA", parsed)
	}
	certificate, err := x509.ParseCertificate(certificateBlock.Bytes)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, errors.New("holds a key and a certificate that do not belong together")
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return &Authority{key: key, certificate: certificate, pool: pool}, nil
}

// Pin identifies the authority in join tokens.
func (a *Authority) Pin() jointoken.Pin { return jointoken.PinOf(a.certificate) }

// DER returns the authority's certificate.
func (a *Authority) DER() []byte { return a.certificate.Raw }

// issueHost signs a certificate for a host's key. It ignores all that the request says but the key.
func (a *Authority) issueHost(host ids.Host, request *x509.CertificateRequest, now time.Time) (*x509.Certificate, error) {
	return a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: host.String()},
		NotAfter:    now.Add(HostCertificateLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{jointoken.HostURI(host)},
	}, request.PublicKey, now)
}

// issueGateway makes a certificate with a fresh key for the gateway, the authority's certificate in its chain.
func (a *Authority) issueGateway(now time.Time) (*tls.Certificate, error) {
	uri, err := url.Parse(jointoken.GatewayURI)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "Muster gateway"},
		NotAfter:    now.Add(gatewayLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{uri},
	}, key.Public(), now)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (a *Authority) issue(template *x509.Certificate, public any, now time.Time) (*x509.Certificate, error) {
	template.SerialNumber = serialNumber()
	template.NotBefore = now.Add(-clockSkew)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// verifyHost checks that the authority issued a host's certificate. The time is not judged here: an expired certificate still
// proves the key, and whether that suffices is the authorizer's decision.
func (a *Authority) verifyHost(certificate *x509.Certificate) (ids.Host, error) {
	_, err := certificate.Verify(x509.VerifyOptions{
		Roots:       a.pool,
		CurrentTime: certificate.NotAfter,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return ids.Host{}, fmt.Errorf("the client certificate was not issued by this control plane: %w", err)
	}
	host, ok := jointoken.HostOf(certificate)
	if !ok {
		return ids.Host{}, errors.New("the client certificate names no host")
	}
	return host, nil
}

// parseRequest reads a certificate request and checks that the caller has its key.
func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxCertificateRequestSize {
		return nil, errs.InvalidField("certificate_request", "the certificate request is larger than %d bytes", maxCertificateRequestSize)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errs.InvalidField("certificate_request", "the certificate request cannot be read")
	}
	if err = request.CheckSignature(); err != nil {
		return nil, errs.InvalidField("certificate_request", "the certificate request is not signed by its own key")
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errs.InvalidField("certificate_request", "the key must be ECDSA on P-256")
	}
	return request, nil
}

func fingerprint(rawPublicKeyInfo []byte) []byte {
	sum := sha256.Sum256(rawPublicKeyInfo)
	return sum[:]
}

func encodeCertificate(certificate *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}

func decodeCertificate(text string) ([]byte, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the stored certificate is not PEM")
	}
	return block.Bytes, nil
}

// serialNumber is random, as any order would tell how many hosts there are.
func serialNumber() *big.Int {
	limit := new(big.Int).Lsh(big.NewInt(1), serialBits)
	serial, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return serial.Add(serial, big.NewInt(1))
}
