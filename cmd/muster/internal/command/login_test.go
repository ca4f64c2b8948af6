package command

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/contexts"
	"github.com/muster-gpu/muster/cmd/muster/internal/signin"
	"github.com/muster-gpu/muster/internal/ids"
)

// door is the sign-in of a Muster: it lets in who signs its text, and gives a session in a Secure cookie as the API does.
type door struct {
	t       *testing.T
	domain  string
	message string
	orgs    []apiv1.Membership
	keyOrgs []string
	open    bool // a session is
}

const (
	browserCookie = "__Host-muster_sign_in"
	sessionCookie = "__Host-muster_session"
)

func newDoor(t *testing.T, s *server, orgs ...apiv1.Membership) *door {
	d := &door{t: t, domain: strings.TrimPrefix(s.URL, "http://"), orgs: orgs}
	s.on("POST /v1/auth/nonce", http.HandlerFunc(d.nonce))
	s.on("POST /v1/auth/sign-in", http.HandlerFunc(d.signIn))
	s.on("POST /v1/keys", http.HandlerFunc(d.key))
	s.on("POST /v1/auth/sign-out", http.HandlerFunc(d.signOut))
	return d
}

func cookie(name, value string, age int) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, MaxAge: age, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

func (d *door) nonce(w http.ResponseWriter, r *http.Request) {
	var in apiv1.NonceRequest
	_ = json.NewDecoder(r.Body).Decode(&in)
	d.message = d.domain + " wants you to sign in with your Solana account:\n" + in.Address + "\n\nSign in to Muster.\n\nNonce: abc"
	http.SetCookie(w, cookie(browserCookie, "browser", 300))
	answer(w, apiv1.SignInInput{Domain: d.domain, Address: in.Address, Message: d.message})
}

func (d *door) signIn(w http.ResponseWriter, r *http.Request) {
	var in apiv1.SignInRequest
	_ = json.NewDecoder(r.Body).Decode(&in)
	signed, _ := base64.StdEncoding.DecodeString(in.SignedMessage)
	signature, _ := base64.StdEncoding.DecodeString(in.Signature)
	key, _ := base58.Decode(in.Address)
	if c, err := r.Cookie(browserCookie); err != nil || c.Value != "browser" || string(signed) != d.message || !ed25519.Verify(key, signed, signature) {
		w.WriteHeader(http.StatusUnauthorized)
		answer(w, problem(http.StatusUnauthorized, codeUnauthenticated, "the sign-in was not accepted"))
		return
	}
	d.open = true
	http.SetCookie(w, cookie(sessionCookie, "session", 3600))
	http.SetCookie(w, cookie(browserCookie, "", -1))
	answer(w, apiv1.Me{UserID: fixed[ids.User](1), Name: "Ada", WalletAddress: in.Address, Organisations: d.orgs})
}

func (d *door) hasSession(r *http.Request) bool {
	c, err := r.Cookie(sessionCookie)
	_, old := r.Cookie(browserCookie)
	return d.open && err == nil && c.Value == "session" && old != nil
}

func (d *door) key(w http.ResponseWriter, r *http.Request) {
	var in apiv1.KeyCreate
	_ = json.NewDecoder(r.Body).Decode(&in)
	if !d.hasSession(r) || in.Days != signin.KeyDays || len(in.Scopes) != len(signin.Scopes) || in.Name != "muster on laptop" {
		d.t.Errorf("a key was asked for with %+v, session %v", in, d.hasSession(r))
	}
	d.keyOrgs = append(d.keyOrgs, r.URL.Query().Get("org"))
	answer(w, apiv1.KeyCreated{Key: apiv1.Key{ID: fixed[ids.Key](1), Hint: "mst_3fQ", ExpiresAt: testNow.Add(90 * 24 * time.Hour)}, Secret: "mst_3fQsecret"})
}

func (d *door) signOut(w http.ResponseWriter, r *http.Request) {
	if !d.hasSession(r) {
		d.t.Error("sign-out without the session")
	}
	d.open = false
	w.WriteHeader(http.StatusNoContent)
}

// keypair writes a key file as solana-keygen does.
func keypair(t *testing.T) string {
	t.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	numbers := make([]int, len(key))
	for i, b := range key {
		numbers[i] = int(b)
	}
	encoded, err := json.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id.json")
	if err := os.WriteFile(path, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	northwind = apiv1.Membership{OrgID: testOrg, Name: "Northwind Labs", Roles: []string{"engineer"}}
	ridge     = apiv1.Membership{OrgID: fixed[ids.Org](2), Name: "Ridge Compute", Roles: []string{"owner"}}
)

func TestLoginStoresAKeyAndEndsTheSession(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	d := newDoor(t, s, northwind)
	sh := newShell(t, "")
	wallet := keypair(t)
	sh.run("login", "--server", s.URL+"/", "--wallet", wallet).has(t, exitOK, "as Ada of Northwind Labs (engineer)", "good until 2027-02-20")
	if d.open {
		t.Error("the session is still open")
	}
	path := filepath.Join(sh.config, "muster", "config.yaml")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	file, err := contexts.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := contexts.Context{Server: s.URL, Org: testOrg.String(), OrgName: "Northwind Labs", Person: "Ada", Key: "mst_3fQsecret"}
	if got := file.Contexts[file.Current]; got != want || file.Current != "northwind-labs@"+d.domain {
		t.Errorf("%q is %+v, want %+v", file.Current, got, want)
	}
	sh.run("wallet", "show").has(t, exitOK)
	if made := s.made("GET /v1/wallet"); len(made) != 1 || made[0].auth != "Bearer mst_3fQsecret" {
		t.Errorf("the key is not used: %+v", made)
	}
}

func TestLoginChoosesAnOrganisation(t *testing.T) {
	t.Parallel()
	wallet := keypair(t)
	for name, tc := range map[string]struct {
		flags []string
		typed string
		code  int
		org   string
	}{
		"by name":            {flags: []string{"--org", "ridge compute"}, org: ridge.OrgID.String()},
		"by id":              {flags: []string{"--org", testOrg.String()}, org: testOrg.String()},
		"by number":          {typed: "2\n", org: ridge.OrgID.String()},
		"by a wrong number":  {typed: "3\n", code: exitUsage},
		"none":               {code: exitUsage},
		"one of others only": {flags: []string{"--org", "elsewhere"}, code: exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			d := newDoor(t, s, northwind, ridge)
			sh := newShell(t, "")
			sh.app.In, sh.app.InTTY = strings.NewReader(tc.typed), tc.typed != ""
			sh.run(append([]string{"login", "--server", s.URL, "--wallet", wallet}, tc.flags...)...).has(t, tc.code)
			if got := strings.Join(d.keyOrgs, ","); got != tc.org {
				t.Errorf("keys were made for %q, want %q", got, tc.org)
			}
			if d.open {
				t.Error("the session is still open")
			}
		})
	}
}

func TestLoginSignsNothingForAnotherSite(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	d := newDoor(t, s, northwind)
	d.domain = "bank.example"
	wallet := keypair(t)
	newShell(t, "").run("login", "--server", s.URL, "--wallet", wallet).has(t, exitFailed, "bank.example", "nothing was signed")
	s.on("POST /v1/auth/nonce", apiv1.SignInInput{Message: "\x80\x01transaction"})
	newShell(t, "").run("login", "--server", s.URL, "--wallet", wallet).has(t, exitFailed, "nothing was signed")
	if len(s.made("POST /v1/auth/sign-in")) > 0 {
		t.Error("a signature was sent")
	}
}

func TestLoginTakesAKeyFromStandardInput(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, "")
	sh.app.In = strings.NewReader("mst_piped\n")
	sh.run("login", "--server", s.URL, "--key", "-", "--name", "ci").has(t, exitOK, `The context is "ci"`)
	if made := s.made("GET /v1/me"); len(made) != 1 || made[0].auth != "Bearer mst_piped" {
		t.Errorf("%+v", made)
	}
	sh.run("login", "--server", s.URL, "--key", "abc").has(t, exitUsage, "begins with mst_")
	s.on("GET /v1/me", problem(http.StatusUnauthorized, codeUnauthenticated, "this API key is unknown"))
	sh.run("login", "--server", s.URL, "--key", "mst_x").has(t, exitNotLoggedIn, "unknown")
}

func TestLoginNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	sh := newShell(t, "")
	damaged := filepath.Join(t.TempDir(), "damaged.json")
	if err := os.WriteFile(damaged, []byte("["+strings.Repeat("1,", 63)+"1]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, text := range map[string]string{
		"login":                                       "Give --server",
		"login --server http://h":                     "give --wallet",
		"login --server http://h --wallet /nope":      "no such file",
		"login --server http://h --wallet " + damaged: "damaged",
	} {
		if r := sh.run(strings.Fields(line)...); r.code == exitOK || !strings.Contains(r.err, text) {
			t.Errorf("%s: exit code %d, %q lacks %q", line, r.code, r.err, text)
		}
	}
}
