package txn

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
)

// Join makes of a message and its signatures, in the order of the message's signers, the bytes that are sent. Each
// signature is verified: what does not verify is never sent.
func Join(message []byte, signatures ...solana.Signature) ([]byte, error) {
	signers, err := signers(message)
	if err != nil {
		return nil, err
	}
	if len(signers) != len(signatures) {
		return nil, fmt.Errorf("a message with %d signers has %d signatures", len(signers), len(signatures))
	}
	for i, signature := range signatures {
		if !ed25519.Verify(ed25519.PublicKey(signers[i][:]), message, signature[:]) {
			return nil, fmt.Errorf("the signature of %s does not verify", signers[i])
		}
	}
	return wire(message, signatures), nil
}

// Unsigned is a message as a transaction whose signatures are zero, for trial runs.
func Unsigned(message []byte) ([]byte, error) {
	signers, err := signers(message)
	if err != nil {
		return nil, err
	}
	return wire(message, make([]solana.Signature, len(signers))), nil
}

func wire(message []byte, signatures []solana.Signature) []byte {
	out := make([]byte, 0, 1+len(message)+signatureBytes*len(signatures))
	if message[0] == versionV1 {
		out = append(out, message...)
		return appendSignatures(out, signatures)
	}
	return append(appendSignatures(append(out, uint8(len(signatures))), signatures), message...)
}

func appendSignatures(out []byte, signatures []solana.Signature) []byte {
	for i := range signatures {
		out = append(out, signatures[i][:]...)
	}
	return out
}

// signers reads who signs a message of this package.
func signers(message []byte) ([]solana.PublicKey, error) {
	if len(message) == 0 {
		return nil, errors.New("the message is empty")
	}
	at, count := 3+1, 0 // where the list of accounts begins, and the count of signers is
	switch {
	case message[0] == versionV1:
		at, count = 1+3+4+32+2, 1
	case message[0] == versionV0:
		at, count = 1+at, 1
	case message[0] > versionV0:
		return nil, fmt.Errorf("a message cannot begin with %#x", message[0])
	}
	if count >= len(message) || message[count] == 0 || at+addressBytes*int(message[count]) > len(message) {
		return nil, errors.New("the message is cut short")
	}
	keys := make([]solana.PublicKey, message[count])
	for i := range keys {
		keys[i] = solana.PublicKey(message[at+addressBytes*i:][:addressBytes])
	}
	return keys, nil
}
