package fleet

import (
	"crypto/x509"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
)

// IssueHost lets tests make certificates that the gateway must not honour although its own authority signed them.
func IssueHost(a *Authority, host ids.Host, request *x509.CertificateRequest, now time.Time) (*x509.Certificate, error) {
	return a.issueHost(host, request, now)
}

// HasRule reports whether the authorizer's table names a method.
func HasRule(method string) bool {
	_, known := rules[method]
	return known
}

// RuleCount is how many methods the table names.
func RuleCount() int { return len(rules) }

// Advance is the decision on one node of a report.
func Advance(state string, wantsStop bool, status *agentpb.NodeStatus) ([]string, string) {
	return advance(state, wantsStop, status)
}
