package jointoken_test

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
)

func TestTextRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pin := jointoken.Pin(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "pin"))
		token := jointoken.New(pin)
		back, err := jointoken.Parse(" " + token.Text() + "\n")
		if err != nil || back.Hash() != token.Hash() || back.Pin() != pin {
			t.Fatalf("%s reads back as %v, %v", token.Text(), back, err)
		}
	})
}

func TestParseNoticesEveryDamagedCharacter(t *testing.T) {
	t.Parallel()
	text := jointoken.New(jointoken.Pin{1}).Text()
	for i := range text {
		replacement := "a"
		if text[i] == 'a' {
			replacement = "b"
		}
		if _, err := jointoken.Parse(text[:i] + replacement + text[i+1:]); !errors.Is(err, jointoken.ErrMalformed) {
			t.Errorf("character %d changed: %v", i, err)
		}
		if _, err := jointoken.Parse(text[:i]); !errors.Is(err, jointoken.ErrMalformed) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestTokenDoesNotPrintItsSecret(t *testing.T) {
	t.Parallel()
	token := jointoken.New(jointoken.Pin{})
	if strings.Contains(token.String(), token.Text()[4:20]) {
		t.Fatalf("%s shows the secret", token)
	}
}

func TestHostOf(t *testing.T) {
	t.Parallel()
	want := ids.New[ids.Host]()
	uri := jointoken.HostURI(want)
	if got, ok := jointoken.HostOf(&x509.Certificate{URIs: []*url.URL{uri}}); !ok || got != want {
		t.Fatalf("%s names %v, %v", uri, got, ok)
	}
	for name, uris := range map[string][]*url.URL{
		"none": nil, "two": {uri, uri}, "gateway": {{Scheme: "spiffe", Host: "muster", Path: "/gateway"}},
		"empty": {{Scheme: "spiffe", Host: "muster", Path: "/host/"}}, "other domain": {{Scheme: "spiffe", Host: "evil", Path: uri.Path}},
	} {
		if got, ok := jointoken.HostOf(&x509.Certificate{URIs: uris}); ok {
			t.Errorf("%s: taken for %v", name, got)
		}
	}
}
