package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// signed signs a batch on a vault and returns the request.
func (b *bench) signed(t *testing.T, v *vault, amounts ...uint64) ([]byte, Batch) {
	t.Helper()
	batch := b.batch(t, amounts...)
	message := b.draft(t, batch).bytes(t)
	if _, err := signBatch(t, v, message, batch); err != nil {
		t.Fatal(err)
	}
	return message, batch
}

func (b *bench) journalFile() string { return filepath.Join(b.options.JournalDir, journalName) }

func TestJournalRemembersAcrossRestarts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	message, batch := b.signed(t, v, 5, 7)
	before, err := signBatch(t, v, message, batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.journal.close(); err != nil {
		t.Fatal(err)
	}
	v = b.vault(t)
	after, err := signBatch(t, v, message, batch)
	if err != nil || after != before {
		t.Fatalf("after a restart: %v, %v; want %v", after, err, before)
	}
	repeat := Batch{ID: batch.ID, Payouts: batch.Payouts[:1]}
	_, err = signBatch(t, v, message, repeat)
	wantRule(t, err, RuleBatchChanged)
}

func TestJournalDropsAnUnfinishedLastRecordAndNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	b.signed(t, v, 1)
	whole := v.journal.length
	message, batch := b.signed(t, v, 2)
	if err := v.journal.close(); err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile(b.journalFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int64{whole, whole + 1, whole + 70, int64(len(full)) - 1} {
		if err := os.WriteFile(b.journalFile(), full[:cut], privateMode); err != nil {
			t.Fatal(err)
		}
		v = b.vault(t)
		if len(v.journal.batches) != 1 {
			t.Fatalf("cut at %d: %d batches are known, want 1", cut, len(v.journal.batches))
		}
		if _, err := signBatch(t, v, message, batch); err != nil { // it was never answered, so it may be signed
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if err := v.journal.close(); err != nil {
			t.Fatal(err)
		}
	}
	again := b.vault(t)
	if len(again.journal.batches) != 2 {
		t.Fatalf("%d batches are known after writing behind a cut, want 2", len(again.journal.batches))
	}
}

func TestJournalRefusesDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(lines [][]byte) [][]byte{
		"a changed amount": func(l [][]byte) [][]byte {
			l[0] = bytes.Replace(l[0], []byte(`"amount":1`), []byte(`"amount":2`), 1)
			return l
		},
		"a dropped record":    func(l [][]byte) [][]byte { return l[1:] },
		"swapped records":     func(l [][]byte) [][]byte { l[0], l[1] = l[1], l[0]; return l },
		"a record twice":      func(l [][]byte) [][]byte { return append(l[:1:1], l...) },
		"zeros and a newline": func(l [][]byte) [][]byte { return append(l, append(make([]byte, 100), '\n')) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			v := b.vault(t)
			for range 3 {
				b.signed(t, v, 1)
			}
			if err := v.journal.close(); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(b.journalFile())
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.SplitAfter(content, []byte("\n"))
			lines = damage(lines[:len(lines)-1])
			if err := os.WriteFile(b.journalFile(), bytes.Join(lines, nil), privateMode); err != nil {
				t.Fatal(err)
			}
			if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Fatalf("the damaged journal was opened: %v", err)
			}
		})
	}
}

func TestNothingIsSignedWhenTheJournalCannotBeWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	if err := v.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	batch := b.batch(t, 1)
	signature, err := signBatch(t, v, b.draft(t, batch).bytes(t), batch)
	var refusal *Refusal
	if err == nil || errors.As(err, &refusal) || !signature.IsZero() {
		t.Fatalf("got %v, %v; want an error of the journal and no signature", signature, err)
	}
}

func TestOneSignerAtATime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vault(t)
	if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), "another signer") {
		t.Fatalf("a second signer opened the journal: %v", err)
	}
}

func TestRefusesFilesThatOthersCanRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, path := range []string{b.options.KeyFile, b.options.PolicyFile} {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, _, err := load(t.Context(), b.options); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s with mode 640: %v", filepath.Base(path), err)
		}
		if err := os.Chmod(path, privateMode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Init(b.options.KeyFile); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key file was replaced: %v", err)
	}
}

const childVariable = "MUSTER_SIGNER_TEST_OPTIONS"

// TestMain is also the signer process that TestJournalSurvivesKill kills.
func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		runChild(text)
	}
	os.Exit(m.Run())
}

func TestJournalSurvivesKill(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5, 7)
	message := b.draft(t, batch).bytes(t)
	process := b.startProcess(t)
	client := NewClient(b.options.Socket)
	defer client.Close()
	first, err := client.Sign(t.Context(), message, batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait() // killed, as meant
	client.Close()
	b.startProcess(t)
	again, err := client.Sign(t.Context(), message, batch)
	if err != nil || again != first {
		t.Fatalf("after kill -9: %v, %v; want %v", again, err, first)
	}
	changed := Batch{ID: batch.ID, Payouts: batch.Payouts[:1]}
	_, err = client.Sign(t.Context(), message, changed)
	wantRule(t, err, RuleBatchChanged)
}

// startProcess runs the signer in a process of its own and waits until it serves.
func (b *bench) startProcess(t *testing.T) *exec.Cmd {
	t.Helper()
	options := b.options
	text, err := json.Marshal(map[string]string{
		"Socket": options.Socket, "KeyFile": options.KeyFile, "JournalDir": options.JournalDir, "PolicyFile": options.PolicyFile,
		"RemoteKeyFile": options.RemoteKeyFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])
	process.Env = append(os.Environ(), childVariable+"="+string(text))
	process.Stderr = os.Stderr
	ready, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill() // it may be dead already
		_ = process.Wait()
	})
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the signer process did not start: %v", err)
	}
	return process
}
