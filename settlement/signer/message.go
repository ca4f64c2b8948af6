package signer

import (
	"encoding/binary"
	"slices"

	"github.com/gagliardetto/solana-go"
)

// Limits of the message formats.
const (
	maxMessageBytes   = 4096 - 64 // a version 1 transaction with one signature
	maxLegacyBytes    = 1232 - 65
	maxAccounts       = 64
	maxInstructions   = 64
	versionBit        = 0x80
	version0          = 0x80
	version1          = 0x81
	configPriorityFee = 0b11
	configComputeUnit = 0b100
	configLoadedData  = 0b1000
	configHeapSize    = 0b10000
	configKnown       = configPriorityFee | configComputeUnit | configLoadedData | configHeapSize
)

// message is a parsed message: what a cluster would execute.
type message struct {
	version      int // -1 is legacy
	signatures   int
	keys         []solana.PublicKey
	lifetime     solana.Hash
	priorityFee  uint64 // version 1 only
	instructions []instruction
}

type instruction struct {
	program  solana.PublicKey
	accounts []solana.PublicKey
	data     []byte
}

// parse reads a message of any version, to its last byte. What a cluster would refuse is refused here, and so is everything
// that has two spellings.
func parse(bytes []byte) (*message, *Refusal) {
	if len(bytes) == 0 || len(bytes) > maxMessageBytes {
		return nil, refuse(RuleMalformed, "a message has 1 to %d bytes, this has %d", maxMessageBytes, len(bytes))
	}
	r := &reader{rest: bytes}
	var m *message
	switch first := bytes[0]; {
	case first == version1:
		m = parseV1(r)
	case first == version0 || first&versionBit == 0:
		if len(bytes) > maxLegacyBytes {
			return nil, refuse(RuleMalformed, "a message of this version has at most %d bytes, this has %d", maxLegacyBytes, len(bytes))
		}
		m = parseLegacy(r)
	default:
		return nil, refuse(RuleMalformed, "messages of version %d are unknown", first&^byte(versionBit))
	}
	switch {
	case r.lookups:
		return nil, refuse(RuleLookupTable, "accounts in lookup tables cannot be checked")
	case r.problem != "":
		return nil, refuse(RuleMalformed, "%s", r.problem)
	case len(r.rest) > 0:
		return nil, refuse(RuleMalformed, "%d bytes follow the message", len(r.rest))
	}
	return m, nil
}

// reader takes a message apart; after the first problem it yields zeros.
type reader struct {
	rest    []byte
	problem string
	lookups bool
}

func (r *reader) fail(problem string) {
	if r.problem == "" {
		r.problem, r.rest = problem, nil
	}
}

func (r *reader) take(n int) []byte {
	if len(r.rest) < n {
		r.fail("the message is cut short")
		return make([]byte, n)
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) byte() int { return int(r.take(1)[0]) }

func (r *reader) key() (key [32]byte) { return [32]byte(r.take(32)) }

// length reads Solana's compact-u16: seven bits a byte, the lowest first, in as few bytes as possible.
func (r *reader) length() int {
	value := 0
	for i := range 3 {
		b := r.byte()
		value |= (b & 0x7f) << (7 * i)
		if b&versionBit != 0 {
			continue
		}
		if (i > 0 && b == 0) || value > 0xffff {
			r.fail("a length is not spelled as it must be")
			return 0
		}
		return value
	}
	r.fail("a length is not spelled as it must be")
	return 0
}

// count reads a length and bounds it.
func (r *reader) count(limit int, what string) int {
	n := r.length()
	if n > limit {
		r.fail("too many " + what)
		return 0
	}
	return n
}

func parseLegacy(r *reader) *message {
	m := &message{version: -1}
	if r.rest[0] == version0 {
		m.version = 0
		r.byte()
	}
	m.signatures = r.header()
	m.keys = r.keys(r.count(maxAccounts, "accounts"))
	m.checkHeader(r)
	m.lifetime = r.key()
	for range r.count(maxInstructions, "instructions") {
		program := r.byte()
		accounts := r.take(r.count(len(r.rest), "accounts of an instruction"))
		data := r.take(r.count(len(r.rest), "bytes of an instruction"))
		m.add(r, program, accounts, data)
	}
	if m.version == 0 && r.problem == "" && r.length() > 0 {
		r.lookups = true
	}
	return m
}

func parseV1(r *reader) *message {
	m := &message{version: 1}
	r.byte()
	m.signatures = r.header()
	mask := binary.LittleEndian.Uint32(r.take(4))
	if fee := mask & configPriorityFee; mask&^uint32(configKnown) != 0 || (fee != 0 && fee != configPriorityFee) {
		r.fail("the configuration mask is unknown")
	}
	m.lifetime = r.key()
	instructions, accounts := r.byte(), r.byte()
	if instructions > maxInstructions || accounts > maxAccounts {
		r.fail("too many accounts or instructions")
		return m
	}
	m.keys = r.keys(accounts)
	m.checkHeader(r)
	m.readConfig(r, mask)
	heads := r.take(4 * instructions)
	for i := range instructions {
		head := heads[4*i : 4*i+4]
		indices := r.take(int(head[1]))
		data := r.take(int(binary.LittleEndian.Uint16(head[2:])))
		m.add(r, int(head[0]), indices, data)
	}
	return m
}

func (m *message) readConfig(r *reader, mask uint32) {
	if mask&configPriorityFee == configPriorityFee {
		m.priorityFee = binary.LittleEndian.Uint64(r.take(8))
	}
	for _, bit := range []uint32{configComputeUnit, configLoadedData} {
		if mask&bit != 0 {
			r.take(4)
		}
	}
	if mask&configHeapSize != 0 {
		size := binary.LittleEndian.Uint32(r.take(4))
		if size%1024 != 0 || size < solana.MinHeapSizeV1 || size > solana.MaxHeapSizeV1 {
			r.fail("the heap size is not possible")
		}
	}
}

// header reads the counts of signers; which of them are read-only is left to the cluster.
func (r *reader) header() (signatures int) {
	head := r.take(3)
	if head[1] >= head[0] {
		r.fail("no signer can pay the fee")
	}
	return int(head[0])
}

func (r *reader) keys(n int) []solana.PublicKey {
	keys := make([]solana.PublicKey, 0, n)
	for range n {
		key := solana.PublicKey(r.key())
		if r.problem == "" && slices.Contains(keys, key) {
			r.fail("an account is listed twice")
		}
		keys = append(keys, key)
	}
	return keys
}

func (m *message) checkHeader(r *reader) {
	if m.signatures > len(m.keys) {
		r.fail("more signers than accounts")
	}
}

func (m *message) add(r *reader, program int, accounts, data []byte) {
	if r.problem != "" {
		return
	}
	if program == 0 || program >= len(m.keys) {
		r.fail("an instruction names a program that the message does not list")
		return
	}
	built := instruction{program: m.keys[program], data: data}
	for _, index := range accounts {
		if int(index) >= len(m.keys) {
			r.lookups = m.version == 0 // only a lookup table could hold it
			r.fail("an instruction names an account that the message does not list")
			return
		}
		built.accounts = append(built.accounts, m.keys[index])
	}
	m.instructions = append(m.instructions, built)
}
