package signer

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSignatureVersion4 uses the case post-vanilla of AWS's test suite for Signature Version 4.
func TestSignatureVersion4(t *testing.T) {
	t.Parallel()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://example.amazonaws.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	signV4(request, nil, awsCredentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"},
		"us-east-1", "service", time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC))
	const want = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, " +
		"Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
	if got := request.Header.Get("Authorization"); got != want || !strings.Contains(got, "x-amz-date") {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}
