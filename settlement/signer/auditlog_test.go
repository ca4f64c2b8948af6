package signer

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

func (b *bench) logFile() string { return filepath.Join(b.options.JournalDir, logName) }

// run serves for as long as use takes.
func (b *bench) run(t *testing.T, use func(client *Client)) {
	t.Helper()
	t.Run("signer", func(t *testing.T) { use(b.serve(t)) }) //nolint:paralleltest // it ends before run returns
}

func TestTheLogHasEachRequestAndItsOutcome(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5)
	d := b.draft(t, batch)
	b.run(t, func(client *Client) {
		if _, err := client.Sign(t.Context(), d.bytes(t), batch); err != nil {
			t.Fatal(err)
		}
		_, err := client.Sign(t.Context(), b.draft(t, batch).bytes(t), batch)
		wantRule(t, err, RuleBatchChanged)
		if _, err := client.Cancel(t.Context(), b.advance(t).bytes(t), ids.New[ids.Batch]()); err != nil {
			t.Fatal(err)
		}
	})
	report, err := VerifyLog(b.options.JournalDir)
	if err != nil || report.First != 1 || report.Last != 3 || report.Outcomes[outcomeSigned] != 2 || report.Outcomes[outcomeRefused] != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	text, err := os.ReadFile(b.logFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{batch.ID.String(), string(RuleBatchChanged), `"kind":"cancel"`, `"user":`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
}

func TestSecretsAreNeitherInTheLogNorInTheJournal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	loaded, err := readKeys(b.options.KeyFile, "")
	if err != nil {
		t.Fatal(err)
	}
	b.run(t, func(client *Client) {
		batch := b.batch(t, 5)
		if _, err := client.Sign(t.Context(), b.draft(t, batch).bytes(t), batch); err != nil {
			t.Fatal(err)
		}
	})
	private, ok := loaded.treasury.(localKey)
	if !ok {
		t.Fatalf("%T", loaded.treasury)
	}
	for _, path := range []string{b.logFile(), b.journalFile()} {
		text, err := os.ReadFile(path)
		if err != nil || len(text) == 0 {
			t.Fatalf("%s: %d bytes, %v", path, len(text), err)
		}
		for _, secret := range [][]byte{private[:ed25519.SeedSize], private, loaded.depositSeed} {
			for _, spelling := range []string{
				string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), solana.Base58(secret).String(),
			} {
				if bytes.Contains(text, []byte(spelling)) {
					t.Errorf("%s holds a secret", filepath.Base(path))
				}
			}
		}
	}
}

func TestTheLogShowsDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(lines [][]byte) [][]byte{
		"a changed outcome": func(l [][]byte) [][]byte {
			l[1] = bytes.Replace(l[1], []byte(outcomeSigned), []byte(outcomeFailed), 1)
			return l
		},
		"a dropped line": func(l [][]byte) [][]byte { return append(l[:1:1], l[2:]...) },
		"swapped lines":  func(l [][]byte) [][]byte { l[0], l[1] = l[1], l[0]; return l },
		"a line twice":   func(l [][]byte) [][]byte { return append(l[:2:2], l[1:]...) },
		"a torn middle":  func(l [][]byte) [][]byte { l[1] = append(l[1][:20:20], '\n'); return l },
		"a forged end": func(l [][]byte) [][]byte {
			return append(l, []byte(`{"number":9,"previous_sha256":"","at":"2026-11-22T00:00:00Z"}`+"\n"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.logLines(t, 3)
			content, err := os.ReadFile(b.logFile())
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.SplitAfter(content, []byte("\n"))
			if err := os.WriteFile(b.logFile(), bytes.Join(damage(lines[:len(lines)-1]), nil), privateMode); err != nil {
				t.Fatal(err)
			}
			if report, err := VerifyLog(b.options.JournalDir); err == nil {
				t.Errorf("the damaged log was verified: %+v", report)
			}
			if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), "restore the log") {
				t.Errorf("the signer started with a damaged log: %v", err)
			}
		})
	}
}

// logLines writes lines as the signer does.
func (b *bench) logLines(t *testing.T, n int) *auditLog {
	t.Helper()
	if err := os.MkdirAll(b.options.JournalDir, privateDirMode); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(b.options.JournalDir, b.options.Now)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := l.append([]logged{{Kind: kindCancel, Outcome: outcomeSigned}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = l.close() })
	return l
}

func TestTheLogDropsAnUnfinishedLastLineAndNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.logLines(t, 2)
	whole, err := os.ReadFile(b.logFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.logFile(), append(bytes.Clone(whole), whole[:30]...), privateMode); err != nil {
		t.Fatal(err)
	}
	if report, err := VerifyLog(b.options.JournalDir); err != nil || report.Last != 2 || report.Torn != 30 {
		t.Fatalf("%+v, %v", report, err)
	}
	b.logLines(t, 1)
	if report, err := VerifyLog(b.options.JournalDir); err != nil || report.Last != 3 || report.Torn != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
}

func TestFullLogFilesArePutAwayAndStayInTheChain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	l := b.logLines(t, 0)
	l.limit = 300
	for range 7 {
		if err := l.append([]logged{{Kind: kindCancel, Outcome: outcomeSigned}}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := logFiles(b.options.JournalDir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	b.logLines(t, 2) // a restart goes on behind the files that were put away
	if report, err := VerifyLog(b.options.JournalDir); err != nil || report.First != 1 || report.Last != 9 {
		t.Fatalf("%+v, %v", report, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if report, err := VerifyLog(b.options.JournalDir); err != nil || report.First == 1 || report.Last != 9 {
		t.Fatalf("after the oldest was moved elsewhere: %+v, %v", report, err)
	}
}

func TestWithoutItsLogNoSignatureLeaves(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	handler, journal, err := load(t.Context(), b.options)
	if err != nil {
		t.Fatal(err)
	}
	defer journal.close()
	if err := handler.audit.close(); err != nil {
		t.Fatal(err)
	}
	client := b.serveHandler(t, handler)
	batch := b.batch(t, 5)
	message := b.draft(t, batch).bytes(t)
	for range 2 {
		if signature, err := client.Sign(t.Context(), message, batch); !errors.Is(err, ErrUnavailable) || !signature.IsZero() {
			t.Fatalf("got %v, %v", signature, err)
		}
	}
}
