package signer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	awsAlgorithm  = "AWS4-HMAC-SHA256"
	awsTimeFormat = "20060102T150405Z"
)

// signV4 signs a request to the root of an AWS service by Signature Version 4, with all headers that are set. The date and the
// session token are headers too.
func signV4(r *http.Request, body []byte, credentials awsCredentials, region, service string, now time.Time) {
	stamp := now.UTC().Format(awsTimeFormat)
	r.Header.Set("X-Amz-Date", stamp)
	if credentials.SessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", credentials.SessionToken)
	}
	values := map[string]string{"host": r.URL.Host}
	for name := range r.Header {
		values[strings.ToLower(name)] = strings.TrimSpace(r.Header.Get(name))
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var headers strings.Builder
	for _, name := range names {
		headers.WriteString(name + ":" + values[name] + "\n")
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{r.Method, "/", "", headers.String(), signed, hexSum(body)}, "\n")
	scope := strings.Join([]string{stamp[:8], region, service, "aws4_request"}, "/")
	text := strings.Join([]string{awsAlgorithm, stamp, scope, hexSum([]byte(canonical))}, "\n")
	key := []byte("AWS4" + credentials.SecretAccessKey)
	for _, part := range []string{stamp[:8], region, service, "aws4_request"} {
		key = hmacSum(key, part)
	}
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s", awsAlgorithm,
		credentials.AccessKeyID, scope, signed, hex.EncodeToString(hmacSum(key, text))))
}

func hexSum(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func hmacSum(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
