package agent

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/jointoken"
)

const (
	enrolTimeout  = 10 * time.Second // of one attempt
	enrolAttempts = 10               // while the control plane cannot be reached
)

// Enrol spends a join token and saves the identity that it buys. A host that has one already keeps it, and the token is left alone.
// An attempt whose answer was lost may be repeated. Errors are domain errors with what the control plane said.
func Enrol(ctx context.Context, state *State, server, tokenText string, self Self) (Identity, error) {
	identity, err := state.Load()
	if err != nil || identity.Enrolled() {
		return identity, err
	}
	token, err := jointoken.Parse(tokenText)
	if err != nil {
		return identity, errs.InvalidField("join_token", "%v", err)
	}
	identity.Server = server
	if identity, err = identity.withRequest(); err != nil {
		return identity, err
	}
	if err = state.Save(identity); err != nil { // before it is sent, so that the same request can be sent again
		return identity, err
	}
	answer, err := askToEnrol(ctx, identity, token, tokenText, self)
	if err != nil {
		return identity, err
	}
	authority, err := x509.ParseCertificate(answer.GetAuthority())
	if err != nil || jointoken.PinOf(authority) != token.Pin() {
		return identity, fmt.Errorf("the control plane answered with another certificate authority than the join token's")
	}
	identity.HostID, identity.Authority = answer.GetHostId(), answer.GetAuthority()
	if identity, err = identity.withCertificate(answer.GetCertificate(), answer.GetGeneration()); err != nil {
		return identity, err
	}
	return identity, state.Save(identity)
}

// Move changes the address at which an enrolled host dials the control plane, if it is another than before. The certificate
// authority stays the one that the join token named, so that no other control plane is believed.
func Move(state *State, server string) error {
	identity, err := state.Load()
	if err != nil || !identity.Enrolled() || identity.Server == server {
		return err
	}
	identity.Server = server
	return state.Save(identity)
}

func askToEnrol(ctx context.Context, identity Identity, token jointoken.Token, text string, self Self) (*agentpb.EnrolResponse, error) {
	connection, err := dial(identity.Server, token.Pin(), nil, time.Now)
	if err != nil {
		return nil, err
	}
	defer connection.Close() //nolint:errcheck // nothing is in flight
	request := &agentpb.EnrolRequest{
		JoinToken: text, CertificateRequest: identity.Request, MachineId: machineID(), Hostname: self.Name, AgentVersion: self.Version,
	}
	for attempt := 1; ; attempt++ {
		attemptCtx, cancel := context.WithTimeout(ctx, enrolTimeout)
		answer, err := agentpb.NewEnrolmentClient(connection).Enrol(attemptCtx, request)
		cancel()
		if err == nil {
			return answer, nil
		}
		err = fromStatus(err)
		if errs.CodeOf(err) != errs.Unavailable || attempt == enrolAttempts {
			return nil, err
		}
		if waitErr := wait(ctx, retryDelay(attempt, reconnectMax)); waitErr != nil {
			return nil, err
		}
	}
}

// machineID names the machine, "" if it does not say.
func machineID() string { return readLine("/etc/machine-id") }

// bootID changes with each start of the machine.
func bootID() string { return readLine("/proc/sys/kernel/random/boot_id") }

func readLine(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(content), "\n")
	return strings.TrimSpace(line)
}
