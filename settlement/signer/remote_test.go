package signer

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gagliardetto/solana-go"
)

// The two servers below are fakes: they speak the wire protocol of Vault's transit engine and of AWS KMS as their documentation has
// it, sign with a key in memory, and check what the real services check of a request. No real Vault or KMS is behind these tests.

// fakeService is what both fakes have: a key, and troubles on demand.
type fakeService struct {
	t       *testing.T
	private ed25519.PrivateKey
	other   atomic.Bool  // signs with another key
	failing atomic.Int32 // so many calls fail with status 503
	calls   atomic.Int32
}

func (f *fakeService) troubled(w http.ResponseWriter) bool {
	f.calls.Add(1)
	if f.failing.Add(-1) >= 0 {
		http.Error(w, "sealed", http.StatusServiceUnavailable)
		return true
	}
	return false
}

func (f *fakeService) sign(message []byte) []byte {
	if f.other.Load() {
		return ed25519.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), message)
	}
	return ed25519.Sign(f.private, message)
}

func (f *fakeService) reply(w http.ResponseWriter, body any) {
	if err := json.NewEncoder(w).Encode(body); err != nil {
		f.t.Error(err)
	}
}

const vaultToken = "hvs.token-of-the-test"

// fakeTransit speaks Vault's HTTP API for one ed25519 key with two versions.
type fakeTransit struct{ fakeService }

func (f *fakeTransit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.troubled(w) {
		return
	}
	if r.Header.Get("X-Vault-Token") != vaultToken || r.Header.Get("X-Vault-Namespace") != "finance" {
		w.WriteHeader(http.StatusForbidden)
		f.reply(w, map[string]any{"errors": []string{"permission denied"}})
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/payouts/keys/treasury":
		public := f.private.Public().(ed25519.PublicKey) //nolint:forcetypeassert // it is one
		f.reply(w, map[string]any{"data": map[string]any{
			"type": "ed25519", "latest_version": 2,
			"keys": map[string]any{"1": map[string]any{"public_key": make([]byte, 32)}, "2": map[string]any{"public_key": []byte(public)}},
		}})
	case "POST /v1/payouts/sign/treasury":
		var request struct {
			Input   []byte `json:"input"`
			Version int    `json:"key_version"`
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.Version != 2 {
			http.Error(w, `{"errors":["invalid request"]}`, http.StatusBadRequest)
			return
		}
		f.reply(w, map[string]any{"data": map[string]any{"signature": "vault:v2:" + base64.StdEncoding.EncodeToString(f.sign(request.Input)), "key_version": 2}})
	default:
		http.NotFound(w, r)
	}
}

const (
	awsID     = "AKIDEXAMPLE"
	awsSecret = "secret-of-the-test"
	awsToken  = "session-of-the-test"
	kmsKeyID  = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"
)

// fakeKMS speaks the JSON protocol of AWS KMS for one key, and verifies each request's Signature Version 4.
type fakeKMS struct{ fakeService }

func (f *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.troubled(w) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	if problem := f.verify(r, body); problem != "" {
		w.WriteHeader(http.StatusBadRequest)
		f.reply(w, map[string]string{"__type": "InvalidSignatureException", "message": problem})
		return
	}
	var request struct {
		KeyID                         string `json:"KeyId"`
		MessageType, SigningAlgorithm string
		Message                       []byte
	}
	if err := json.Unmarshal(body, &request); err != nil || request.KeyID != kmsKeyID || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		w.WriteHeader(http.StatusBadRequest)
		f.reply(w, map[string]string{"__type": "NotFoundException", "message": "no such key"})
		return
	}
	switch target := r.Header.Get("X-Amz-Target"); {
	case target == "TrentService.GetPublicKey":
		encoded, err := x509.MarshalPKIXPublicKey(f.private.Public())
		if err != nil {
			f.t.Error(err)
		}
		f.reply(w, map[string]any{"KeyId": kmsKeyID, "PublicKey": encoded, "KeySpec": "ECC_NIST_EDWARDS25519", "KeyUsage": "SIGN_VERIFY"})
	case target == "TrentService.Sign" && request.MessageType == "RAW" && request.SigningAlgorithm == "ED25519_SHA_512" && len(request.Message) <= 4096:
		f.reply(w, map[string]any{"KeyId": kmsKeyID, "Signature": f.sign(request.Message), "SigningAlgorithm": request.SigningAlgorithm})
	default:
		w.WriteHeader(http.StatusBadRequest)
		f.reply(w, map[string]string{"__type": "ValidationException", "message": "unknown operation or parameters"})
	}
}

// verify works the signature out from what arrived, and from the order that the request itself claims.
func (f *fakeKMS) verify(r *http.Request, body []byte) string {
	claims := map[string]string{}
	algorithm, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	for _, part := range strings.Split(rest, ", ") {
		name, value, _ := strings.Cut(part, "=")
		claims[name] = value
	}
	date := r.Header.Get("X-Amz-Date")
	scope := "/eu-central-1/kms/aws4_request"
	if algorithm != "AWS4-HMAC-SHA256" || len(date) != 16 || claims["Credential"] != awsID+"/"+date[:8]+scope {
		return "the credential's scope is wrong: " + claims["Credential"]
	}
	if r.Header.Get("X-Amz-Security-Token") != awsToken {
		return "the session token is missing"
	}
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n"
	for _, name := range strings.Split(claims["SignedHeaders"], ";") {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		canonical += name + ":" + value + "\n"
	}
	for _, name := range []string{"host", "x-amz-date", "x-amz-target", "x-amz-security-token", "content-type"} {
		if !strings.Contains(";"+claims["SignedHeaders"]+";", ";"+name+";") {
			return name + " is not signed"
		}
	}
	digest := func(text string) string { sum := sha256.Sum256([]byte(text)); return hex.EncodeToString(sum[:]) }
	mac := func(key, text string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(text))
		return string(h.Sum(nil))
	}
	canonical += "\n" + claims["SignedHeaders"] + "\n" + digest(string(body))
	key := mac(mac(mac(mac("AWS4"+awsSecret, date[:8]), "eu-central-1"), "kms"), "aws4_request")
	want := hex.EncodeToString([]byte(mac(key, "AWS4-HMAC-SHA256\n"+date+"\n"+date[:8]+scope+"\n"+digest(canonical))))
	if claims["Signature"] != want {
		return "the signature does not match"
	}
	return ""
}

// remoteBench is a bench whose treasury key a fake service holds.
type remoteBench struct {
	*bench
	fake   *fakeService
	config RemoteKey
}

func newRemoteBench(t *testing.T, kind string) *remoteBench {
	t.Helper()
	b := &remoteBench{bench: newBench(t)}
	dir := t.TempDir()
	secret := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), privateMode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler
	if kind == "vault" {
		fake := &fakeTransit{fakeService{t: t, private: private}}
		b.fake, handler = &fake.fakeService, fake
	} else {
		fake := &fakeKMS{fakeService{t: t, private: private}}
		b.fake, handler = &fake.fakeService, fake
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // a test has a client that does not trust it
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := secret("ca.pem", pemText(server))
	b.treasury = solana.PublicKeyFromBytes(private[ed25519.SeedSize:])
	b.config.Address = b.treasury
	if kind == "vault" {
		b.config.Vault = &TransitKey{
			URL: server.URL, Mount: "payouts", Key: "treasury", Version: 2, TokenFile: secret("token", vaultToken+"\n"), Namespace: "finance", CAFile: ca,
		}
	} else {
		credentials := fmt.Sprintf(`{"access_key_id":%q,"secret_access_key":%q,"session_token":%q}`, awsID, awsSecret, awsToken)
		b.config.KMS = &KMSKey{Region: "eu-central-1", KeyID: kmsKeyID, CredentialsFile: secret("aws", credentials), Endpoint: server.URL, CAFile: ca}
	}
	b.options.KeyFile = filepath.Join(dir, "deposits")
	if _, err := (KeyFile{DepositsOnly: true}).Init(b.options.KeyFile); err != nil {
		t.Fatal(err)
	}
	b.options.RemoteKeyFile = filepath.Join(dir, "remote.json")
	b.write(t)
	return b
}

func (b *remoteBench) write(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.options.RemoteKeyFile, text, privateMode); err != nil {
		t.Fatal(err)
	}
}

func TestRemoteKeysSignAsLocalOnesDo(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"vault", "kms"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newRemoteBench(t, kind)
			v := b.vault(t)
			message, batch := b.signed(t, v, 5, 7)
			b.fake.failing.Store(1) // is asked again
			signature, err := signBatch(t, v, message, batch)
			if err != nil || !signature.Verify(b.treasury, message) {
				t.Fatalf("%v, %v", signature, err)
			}
			d, sweep := b.sweep(t, v, 7)
			message = d.bytes(t)
			signatures, err := ask(t, v, request{Message: message, Sweep: &sweep})
			if err != nil || !signatures[0].Verify(b.treasury, message) || !signatures[1].Verify(v.keys.deposit(sweep.Org), message) {
				t.Fatalf("sweep: %v, %v", signatures, err)
			}
			refused := b.draft(t, batch)
			calls := b.fake.calls.Load()
			if _, err := signBatch(t, v, refused.bytes(t), batch); err == nil || b.fake.calls.Load() != calls {
				t.Errorf("a refused message reached the key: %v", err)
			}
		})
	}
}

func TestARemoteKeyThatFailsIsAskedAgainLater(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"vault", "kms"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newRemoteBench(t, kind)
			v := b.vault(t)
			batch := b.batch(t, 5)
			message := b.draft(t, batch).bytes(t)
			b.fake.failing.Store(remoteTries)
			if _, err := signBatch(t, v, message, batch); err == nil || !strings.Contains(err.Error(), "503") {
				t.Fatalf("with the service down: %v", err)
			}
			b.fake.other.Store(true)
			if _, err := signBatch(t, v, message, batch); err == nil || !strings.Contains(err.Error(), "does not verify") {
				t.Fatalf("with another key's signature: %v", err)
			}
			b.fake.other.Store(false)
			other := b.draft(t, batch)
			_, err := signBatch(t, v, other.bytes(t), batch)
			wantRule(t, err, RuleBatchChanged) // what was allowed is in the journal, signed or not
			if signature, err := signBatch(t, v, message, batch); err != nil || !signature.Verify(b.treasury, message) {
				t.Fatalf("afterwards: %v, %v", signature, err)
			}
		})
	}
}

func TestARemoteKeyMustBeTheTreasurys(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind, want string
		change     func(t *testing.T, b *remoteBench)
	}{
		"another address":      {"vault", "not that of the treasury", func(t *testing.T, b *remoteBench) { b.config.Address = randomKey(t) }},
		"no address":           {"kms", "address is missing", func(_ *testing.T, b *remoteBench) { b.config.Address = solana.PublicKey{} }},
		"another version":      {"vault", "not that of the treasury", func(_ *testing.T, b *remoteBench) { b.config.Vault.Version = 1 }},
		"a version too far":    {"vault", "no version 3", func(_ *testing.T, b *remoteBench) { b.config.Vault.Version = 3 }},
		"a wrong token":        {"vault", "permission denied", func(_ *testing.T, b *remoteBench) { b.config.Vault.TokenFile = b.options.RemoteKeyFile }},
		"a wrong region":       {"kms", "scope is wrong", func(_ *testing.T, b *remoteBench) { b.config.KMS.Region = "us-east-1" }},
		"an unknown key":       {"kms", "no such key", func(_ *testing.T, b *remoteBench) { b.config.KMS.KeyID = "alias/other" }},
		"both services":        {"kms", "exactly one", func(_ *testing.T, b *remoteBench) { b.config.Vault = &TransitKey{} }},
		"plain http":           {"kms", "https://", func(_ *testing.T, b *remoteBench) { b.config.KMS.Endpoint = "http://kms.example.com" }},
		"an untrusted service": {"vault", "certificate", func(_ *testing.T, b *remoteBench) { b.config.Vault.CAFile = "" }},
		"two treasury keys": {"vault", "which of them", func(t *testing.T, b *remoteBench) {
			b.options.KeyFile += ".both"
			if _, err := Init(b.options.KeyFile); err != nil {
				t.Fatal(err)
			}
		}},
		"a wrong secret": {"kms", "signature does not match", func(t *testing.T, b *remoteBench) {
			text := fmt.Sprintf(`{"access_key_id":%q,"secret_access_key":"wrong","session_token":%q}`, awsID, awsToken)
			if err := os.WriteFile(b.config.KMS.CredentialsFile, []byte(text), privateMode); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newRemoteBench(t, test.kind)
			test.change(t, b)
			b.write(t)
			if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func pemText(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}
