package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"math/big"
	"strings"

	"github.com/muster-gpu/muster/internal/errs"
)

const (
	base58Digits     = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	maxAddressLength = 44 // of 32 bytes in base58
)

// ParseWallet reads a wallet's address: the base58 text of an Ed25519 public key that can be verified against. The error names
// the input by path.
func ParseWallet(path, address string) (ed25519.PublicKey, error) {
	raw, ok := decodeBase58(address)
	if !ok || len(raw) != ed25519.PublicKeySize {
		return nil, errs.InvalidField(path, "%q is not a wallet address: it is 32 bytes in base58", shorten(address))
	}
	key := ed25519.PublicKey(raw)
	if !isCanonicalPoint(key) || isSmallOrder(key) {
		return nil, errs.InvalidField(path, "%q is not the address of a wallet that can sign", shorten(address))
	}
	return key, nil
}

// decodeBase58 reads text of at most maxAddressLength digits. Leading ones are leading zero bytes.
func decodeBase58(text string) ([]byte, bool) {
	if text == "" || len(text) > maxAddressLength {
		return nil, false
	}
	value, base := new(big.Int), big.NewInt(58)
	for _, c := range text {
		digit := strings.IndexRune(base58Digits, c)
		if digit < 0 {
			return nil, false
		}
		value.Mul(value, base).Add(value, big.NewInt(int64(digit)))
	}
	zeros := len(text) - len(strings.TrimLeft(text, "1"))
	return append(make([]byte, zeros), value.Bytes()...), true
}

func shorten(text string) string {
	if len(text) > maxAddressLength+4 {
		return text[:maxAddressLength] + "..."
	}
	return text
}

// verify checks an Ed25519 signature strictly. The standard library refuses an S that is not reduced but accepts keys of small
// order, under which one signature fits many messages; those and non-canonical encodings are refused here.
func verify(key ed25519.PublicKey, message, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && len(signature) == ed25519.SignatureSize &&
		isCanonicalPoint(key) && !isSmallOrder(key) && isReduced(signature[32:]) &&
		ed25519.Verify(key, message, signature)
}

// isCanonicalPoint reports whether the encoded y is below the field's prime 2^255 - 19.
func isCanonicalPoint(key []byte) bool {
	if key[31]&0x7f != 0x7f || key[0] < 0xed {
		return true
	}
	return !bytes.Equal(key[1:31], bytes.Repeat([]byte{0xff}, 30))
}

// smallOrder holds the y of the eight points whose order divides eight, less the non-canonical spellings.
var smallOrder = [][]byte{
	mustHex("0000000000000000000000000000000000000000000000000000000000000000"), // order 4
	mustHex("0100000000000000000000000000000000000000000000000000000000000000"), // order 1
	mustHex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // order 2
	mustHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), // order 8
	mustHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), // order 8
}

func isSmallOrder(key []byte) bool {
	y := bytes.Clone(key)
	y[31] &= 0x7f // the sign of x
	for _, small := range smallOrder {
		if bytes.Equal(y, small) {
			return true
		}
	}
	return false
}

// groupOrder is 2^252 + 27742317777372353535851937790883648493, big-endian.
var groupOrder = mustHex("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed")

func isReduced(s []byte) bool {
	for i := range s {
		switch b, limit := s[31-i], groupOrder[i]; {
		case b < limit:
			return true
		case b > limit:
			return false
		}
	}
	return false
}

func mustHex(text string) []byte {
	raw, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return raw
}
