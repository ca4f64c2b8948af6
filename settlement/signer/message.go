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
	maxTableAddresses = 256
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
	statics      int // how many of the keys the message itself lists; the others are from lookup tables
	keys         []solana.PublicKey
	writable     []bool // of each key
	lifetime     solana.Hash
	priorityFee  uint64 // version 1 only
	instructions []instruction
}

type instruction struct {
	program  solana.PublicKey
	accounts []solana.PublicKey
	places   []byte // of the accounts among the message's keys
	data     []byte
}

// tables are the contents of lookup tables, by address.
type tables map[solana.PublicKey][]solana.PublicKey

// parse reads a message of any version, to its last byte. What a cluster would refuse is refused here, and so is everything
// that has two spellings. Lookup tables are read from known, and never fetched: a cluster only ever appends to them.
func parse(bytes []byte, known tables) (*message, *Refusal) {
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
		m = parseLegacy(r, known)
	default:
		return nil, refuse(RuleMalformed, "messages of version %d are unknown", first&^byte(versionBit))
	}
	switch {
	case r.lookup != "":
		return nil, refuse(RuleLookupTable, "%s", r.lookup)
	case r.problem != "":
		return nil, refuse(RuleMalformed, "%s", r.problem)
	case len(r.rest) > 0:
		return nil, refuse(RuleMalformed, "%d bytes follow the message", len(r.rest))
	}
	if refusal := m.resolve(); refusal != nil {
		return nil, refusal
	}
	return m, nil
}

// reader takes a message apart; after the first problem it yields zeros.
type reader struct {
	rest    []byte
	problem string
	lookup  string // a problem with lookup tables
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

func parseLegacy(r *reader, known tables) *message {
	m := &message{version: -1}
	if r.rest[0] == version0 {
		m.version = 0
		r.byte()
	}
	head := r.header()
	m.listed(r, head, r.keys(r.count(maxAccounts, "accounts")))
	m.lifetime = r.key()
	for range r.count(maxInstructions, "instructions") {
		program := r.byte()
		accounts := r.take(r.count(len(r.rest), "accounts of an instruction"))
		data := r.take(r.count(len(r.rest), "bytes of an instruction"))
		m.add(r, program, accounts, data)
	}
	if m.version == 0 {
		m.lookUp(r, known)
	}
	return m
}

// lookUp appends the accounts that the message takes from lookup tables: those of all tables that it may write come first.
func (m *message) lookUp(r *reader, known tables) {
	var writable, readonly []solana.PublicKey
	used := map[solana.PublicKey]bool{}
	for range r.count(maxAccounts, "lookup tables") {
		table := solana.PublicKey(r.key())
		writes := r.take(r.count(maxTableAddresses, "accounts of a lookup table"))
		reads := r.take(r.count(maxTableAddresses, "accounts of a lookup table"))
		addresses, listed := known[table]
		switch {
		case r.problem != "":
			return
		case !listed:
			r.refuseLookup("the lookup table " + table.String() + " is not on the policy's list")
			return
		case used[table] || len(writes)+len(reads) == 0:
			r.fail("a lookup table is listed twice, or for nothing")
			return
		}
		used[table] = true
		writable = pick(r, writable, addresses, writes)
		readonly = pick(r, readonly, addresses, reads)
	}
	if len(m.keys)+len(writable)+len(readonly) > maxAccounts {
		r.fail("too many accounts")
		return
	}
	for _, key := range writable {
		m.keys, m.writable = append(m.keys, key), append(m.writable, true)
	}
	for _, key := range readonly {
		m.keys, m.writable = append(m.keys, key), append(m.writable, false)
	}
}

func pick(r *reader, to, addresses []solana.PublicKey, places []byte) []solana.PublicKey {
	for _, place := range places {
		if int(place) >= len(addresses) {
			r.refuseLookup("the message takes an account from a lookup table that the policy's list of its contents lacks")
			return to
		}
		to = append(to, addresses[place])
	}
	return to
}

func (r *reader) refuseLookup(why string) {
	if r.problem == "" {
		r.lookup = why
		r.fail(why)
	}
}

func parseV1(r *reader) *message {
	m := &message{version: 1}
	r.byte()
	head := r.header()
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
	m.listed(r, head, r.keys(accounts))
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

// header is how many accounts sign, and how many of those that do and those that do not are only read.
type header struct{ signers, readonlySigners, readonlyOthers int }

func (r *reader) header() header {
	head := r.take(3)
	if head[1] >= head[0] {
		r.fail("no signer can pay the fee")
	}
	return header{int(head[0]), int(head[1]), int(head[2])}
}

// listed takes over the accounts that the message itself lists.
func (m *message) listed(r *reader, head header, keys []solana.PublicKey) {
	m.signatures, m.statics, m.keys = head.signers, len(keys), keys
	if head.signers+head.readonlyOthers > len(keys) {
		r.fail("more signers and readers than accounts")
		return
	}
	for i := range keys {
		signer := i < head.signers
		m.writable = append(m.writable, (signer && i < head.signers-head.readonlySigners) || (!signer && i < len(keys)-head.readonlyOthers))
	}
}

func (r *reader) keys(n int) []solana.PublicKey {
	keys := make([]solana.PublicKey, 0, n)
	for range n {
		keys = append(keys, solana.PublicKey(r.key()))
	}
	return keys
}

func (m *message) add(r *reader, program int, accounts, data []byte) {
	if r.problem != "" {
		return
	}
	if program == 0 || program >= m.statics {
		r.fail("an instruction names a program that the message does not list")
		return
	}
	m.instructions = append(m.instructions, instruction{program: m.keys[program], places: accounts, data: data})
}

// resolve finds the accounts of the instructions, once all are known. An account that is listed twice, or for nothing, is refused.
func (m *message) resolve() *Refusal {
	used := make([]bool, len(m.keys))
	used[0] = true // pays the fee
	for i := range m.instructions {
		in := &m.instructions[i]
		used[slices.Index(m.keys, in.program)] = true
		for _, place := range in.places {
			if int(place) >= len(m.keys) {
				return refuse(RuleMalformed, "an instruction names an account that the message does not list")
			}
			used[place] = true
			in.accounts = append(in.accounts, m.keys[place])
		}
	}
	for i, key := range m.keys {
		if slices.Contains(m.keys[:i], key) {
			return refuse(RuleMalformed, "the account %s is listed twice", key)
		}
		if !used[i] {
			return refuse(RuleMalformed, "the account %s is listed for nothing", key)
		}
	}
	return nil
}
