package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
)

const (
	identityFile = "identity.json"  // exists once the host is enrolled
	pendingFile  = "enrolment.json" // the identity until then
	statusFile   = "status.json"
	lockFile     = "lock"
)

// Identity is who this host is: the content of the state directory's identity file, which is private.
type Identity struct {
	Server      string `json:"server"`
	HostID      string `json:"host_id,omitempty"` // empty until enrolled
	Key         []byte `json:"key"`               // PKCS #8
	Certificate []byte `json:"certificate,omitempty"`
	Authority   []byte `json:"authority,omitempty"`
	Generation  int64  `json:"generation,omitempty"`
	// Request is the certificate request that has not been answered yet. It is sent again unchanged until it is: the control plane
	// takes a second, different one for a copy of this host.
	Request []byte `json:"request,omitempty"`
}

// Enrolled reports whether the host has a certificate.
func (i Identity) Enrolled() bool { return i.HostID != "" && len(i.Certificate) > 0 }

// Leaf returns the host's certificate.
func (i Identity) Leaf() (*x509.Certificate, error) { return x509.ParseCertificate(i.Certificate) }

func (i Identity) key() (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the host's key is of type %T, not ECDSA", parsed)
	}
	return key, nil
}

func (i Identity) tlsCertificate() (*tls.Certificate, error) {
	key, err := i.key()
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{i.Certificate}, PrivateKey: key}, nil
}

// withRequest returns the identity with a certificate request to send, a key too if it has none.
func (i Identity) withRequest() (Identity, error) {
	if len(i.Request) > 0 {
		return i, nil
	}
	if len(i.Key) == 0 {
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return i, err
		}
		if i.Key, err = x509.MarshalPKCS8PrivateKey(made); err != nil {
			return i, err
		}
	}
	key, err := i.key()
	if err != nil {
		return i, err
	}
	// The serial number makes each request another one, whatever the signature scheme does.
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "muster-worker", SerialNumber: rand.Text()}}
	i.Request, err = x509.CreateCertificateRequest(rand.Reader, template, key)
	return i, err
}

// withCertificate takes a certificate that answers the request, if it belongs to the host's key and the authority.
func (i Identity) withCertificate(certificate []byte, generation int64) (Identity, error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return i, fmt.Errorf("the control plane sent a certificate that cannot be read: %w", err)
	}
	authority, err := x509.ParseCertificate(i.Authority)
	if err != nil {
		return i, fmt.Errorf("the authority's certificate cannot be read: %w", err)
	}
	key, err := i.key()
	if err != nil {
		return i, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) || leaf.CheckSignatureFrom(authority) != nil {
		return i, errors.New("the control plane sent a certificate that is not this host's")
	}
	i.Certificate, i.Generation, i.Request = certificate, generation, nil
	return i, nil
}

// State is the agent's directory. One process holds it at a time.
type State struct {
	dir  string
	lock *os.File
}

// OpenState opens a state directory, making it if need be, and locks it. The error is a domain error if another agent has it.
func OpenState(dir string) (*State, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, errs.New(errs.Conflict, "another muster-worker uses the state directory %s: stop it, or give this one a directory of its own", dir)
	}
	return &State{dir: dir, lock: lock}, nil
}

// Close unlocks the directory.
func (s *State) Close() error { return s.lock.Close() }

// Load reads the identity; the zero Identity if there is none.
func (s *State) Load() (Identity, error) { return readIdentity(s.dir) }

func readIdentity(dir string) (Identity, error) {
	var identity Identity
	content, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		content, err = os.ReadFile(filepath.Join(dir, pendingFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return identity, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &identity)
	}
	if err != nil {
		return identity, fmt.Errorf("read the host's identity: %w", err)
	}
	return identity, nil
}

// Save replaces the identity durably.
func (s *State) Save(identity Identity) error {
	name := pendingFile
	if identity.Enrolled() {
		name = identityFile
	}
	err := writeFile(s.dir, name, identity)
	if err == nil && identity.Enrolled() {
		err = os.Remove(filepath.Join(s.dir, pendingFile))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("save the host's identity: %w", err)
	}
	return nil
}

// writeFile replaces a file as a whole: after a crash it is the old or the new one.
func writeFile(dir, name string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(dir, "."+name) // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) //nolint:errcheck // it is gone once it was renamed
	_, err = temporary.Write(append(content, '\n'))
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if err = os.Rename(temporary.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	directory, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// Status is what `muster-worker status` shows.
type Status struct {
	HostID               string     `json:"host_id,omitempty"`
	Server               string     `json:"server,omitempty"`
	Running              bool       `json:"running"` // an agent holds the state directory
	Connected            bool       `json:"connected"`
	Since                *time.Time `json:"since,omitempty"`      // of the connection's last change
	LastError            string     `json:"last_error,omitempty"` // why it is not connected
	CertificateExpiresAt *time.Time `json:"certificate_expires_at,omitempty"`
	Generation           int64      `json:"certificate_generation,omitempty"`
}

// ReadStatus reads a state directory without locking it.
func ReadStatus(dir string) (Status, error) {
	var status Status
	identity, err := readIdentity(dir)
	if err != nil {
		return status, err
	}
	content, err := os.ReadFile(filepath.Join(dir, statusFile))
	if err == nil {
		err = json.Unmarshal(content, &status)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return status, fmt.Errorf("read the agent's status: %w", err)
	}
	status.HostID, status.Server, status.Generation = identity.HostID, identity.Server, identity.Generation
	if identity.Enrolled() {
		leaf, err := identity.Leaf()
		if err != nil {
			return status, err
		}
		status.CertificateExpiresAt = &leaf.NotAfter
	}
	if status.Running = isLocked(dir); !status.Running {
		status.Connected = false
	}
	return status, nil
}

func isLocked(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer lock.Close() //nolint:errcheck // only read
	return syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}
