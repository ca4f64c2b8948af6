package simfleet

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
)

const maxJournalLine = 64 << 10

// Identity is who a host is to the control plane, in the form in which a Journal keeps it.
type Identity struct {
	Name        string `json:"name"`
	HostID      string `json:"host_id,omitempty"` // empty until it is enrolled
	Key         []byte `json:"key"`               // PKCS #8
	Certificate []byte `json:"certificate,omitempty"`
	Authority   []byte `json:"authority,omitempty"`
	Generation  int64  `json:"generation,omitempty"`
	// Request is the certificate request that has not been answered yet. It is sent again unchanged: the control plane takes a second,
	// different one for a copy of the host.
	Request []byte `json:"request,omitempty"`
}

// Store keeps identities between runs. Save is called before a certificate is asked for and when it has come, from several goroutines.
type Store interface {
	Load() (map[string]Identity, error) // by name
	Save(id Identity) error
}

// Forget is a Store that keeps nothing.
type Forget struct{}

// Load implements Store.
func (Forget) Load() (map[string]Identity, error) { return map[string]Identity{}, nil }

// Save implements Store.
func (Forget) Save(Identity) error { return nil }

// Journal is a Store in one private file, a line for each change. It survives the end of the process, not that of the machine: a lost
// last line makes a simulated host that is quarantined.
type Journal struct {
	path string
	mu   sync.Mutex
	file *os.File
}

// OpenJournal opens a journal, or makes it.
func OpenJournal(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the simulated hosts' identities: %w", err)
	}
	return &Journal{path: path, file: file}, nil
}

// Load implements Store. The newest line of a host counts.
func (j *Journal) Load() (map[string]Identity, error) {
	file, err := os.Open(j.path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read
	all := map[string]Identity{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxJournalLine)
	for number := 1; lines.Scan(); number++ {
		var id Identity
		if err := json.Unmarshal(lines.Bytes(), &id); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", j.path, number, err)
		}
		all[id.Name] = id
	}
	return all, lines.Err()
}

// Save implements Store.
func (j *Journal) Save(id Identity) error {
	line, err := json.Marshal(id)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.file.Write(append(line, '\n'))
	return err
}

// Compact rewrites the journal with one line a host. Call it before the fleet runs.
func (j *Journal) Compact() error {
	all, err := j.Load()
	if err != nil {
		return err
	}
	draft := &Journal{path: j.path + ".new"}
	if err := os.Remove(draft.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if draft, err = OpenJournal(draft.path); err != nil {
		return err
	}
	for _, id := range all {
		err = errors.Join(err, draft.Save(id))
	}
	if err = errors.Join(err, draft.file.Sync()); err != nil {
		return errors.Join(err, draft.Close())
	}
	if err := os.Rename(draft.path, j.path); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	old := j.file
	j.file = draft.file
	return old.Close()
}

// Close closes the file.
func (j *Journal) Close() error { return j.file.Close() }

// identity is an Identity in use.
type identity struct {
	host       ids.Host // zero until enrolled
	key        *ecdsa.PrivateKey
	leaf       []byte
	notBefore  time.Time
	notAfter   time.Time
	authority  []byte // shared by all
	generation int64
	request    []byte
}

func newIdentity() (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return identity{key: key}, err
}

func parseIdentity(stored Identity) (identity, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(stored.Key)
	if err != nil {
		return identity{}, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return identity{}, fmt.Errorf("the key is of type %T, not ECDSA", parsed)
	}
	id := identity{key: key, authority: stored.Authority, generation: stored.Generation, request: stored.Request}
	if stored.HostID == "" {
		return id, nil
	}
	if err := id.host.UnmarshalText([]byte(stored.HostID)); err != nil {
		return id, err
	}
	err = id.take(stored.Certificate, stored.Generation)
	return id, err
}

func (id *identity) stored(name string) (Identity, error) {
	key, err := x509.MarshalPKCS8PrivateKey(id.key)
	s := Identity{Name: name, Key: key, Certificate: id.leaf, Authority: id.authority, Generation: id.generation, Request: id.request}
	if !id.host.IsZero() {
		s.HostID = id.host.String()
	}
	return s, err
}

// take adopts a certificate that answers the request.
func (id *identity) take(certificate []byte, generation int64) error {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("a certificate that cannot be read: %w", err)
	}
	if !id.key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("a certificate for another key")
	}
	id.leaf, id.notBefore, id.notAfter, id.generation = certificate, leaf.NotBefore, leaf.NotAfter, generation
	return nil
}

// ask makes the certificate request, unless there is one that was not answered.
func (id *identity) ask() error {
	if len(id.request) > 0 {
		return nil
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "simulated host", SerialNumber: rand.Text()}}
	request, err := x509.CreateCertificateRequest(rand.Reader, template, id.key)
	id.request = request
	return err
}

// renewal is when to renew: at half the certificate's life.
func (id *identity) renewal() time.Time { return id.notBefore.Add(id.notAfter.Sub(id.notBefore) / 2) }

func (id *identity) tlsCertificate() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{id.leaf}, PrivateKey: id.key}
}

// serial names a part of the machine: the same for as long as the host keeps its key, and no other host's.
func (id *identity) serial(part string, number int) string {
	public, _ := id.key.PublicKey.Bytes() // P-256 always encodes
	sum := sha256.Sum256(fmt.Appendf(public, "%s %d", part, number))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// gateway verifies the control plane's gateway, once for each certificate that it shows.
type gateway struct {
	mu       sync.Mutex
	pin      jointoken.Pin
	verified map[[sha256.Size]byte]bool
}

func (g *gateway) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	leaf := state.PeerCertificates[0]
	sum := sha256.Sum256(leaf.Raw)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.verified[sum] && time.Now().Before(leaf.NotAfter) {
		return nil
	}
	for _, candidate := range state.PeerCertificates[1:] {
		if jointoken.PinOf(candidate) != g.pin {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(candidate)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			return err
		}
		if !jointoken.IsGateway(leaf) {
			return errors.New("the server's certificate is not a control plane's")
		}
		g.verified[sum] = true
		return nil
	}
	return errors.New("the server is not the control plane that the hosts belong to")
}

// enrol spends a join token.
func enrol(ctx context.Context, connection grpc.ClientConnInterface, id *identity, name, token string) error {
	answer, err := agentpb.NewEnrolmentClient(connection).Enrol(ctx, &agentpb.EnrolRequest{
		JoinToken: token, CertificateRequest: id.request, MachineId: id.serial("machine", 0), Hostname: name, AgentVersion: agentVersion,
	})
	if err != nil {
		return err
	}
	if err := id.host.UnmarshalText([]byte(answer.GetHostId())); err != nil {
		return err
	}
	id.authority, id.request = answer.GetAuthority(), nil
	return id.take(answer.GetCertificate(), answer.GetGeneration())
}
