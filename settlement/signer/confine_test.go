package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// probeVariable asks a child process to confine itself, and names a file and an address that it then tries to reach.
const probeVariable = "MUSTER_SIGNER_TEST_PROBE"

type probe struct{ File, Address, Report string }

// probeConfined confines the process and reports what it can reach all the same.
func probeConfined(options Options, text string) {
	var p probe
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		panic(err)
	}
	if err := Confine(options); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	report := []string{}
	if _, err := os.ReadFile(p.File); !errors.Is(err, os.ErrPermission) {
		report = append(report, fmt.Sprintf("reads another file: %v", err))
	}
	if err := os.WriteFile(p.File+".new", nil, privateMode); !errors.Is(err, os.ErrPermission) {
		report = append(report, fmt.Sprintf("writes another file: %v", err))
	}
	if err := os.WriteFile(options.PolicyFile, nil, privateMode); !errors.Is(err, os.ErrPermission) {
		report = append(report, fmt.Sprintf("writes its policy: %v", err))
	}
	if connection, err := net.Dial("tcp", p.Address); options.RemoteKeyFile == "" && !errors.Is(err, os.ErrPermission) {
		report = append(report, fmt.Sprintf("connects: %v, %v", connection, err))
	}
	if err := os.WriteFile(p.Report, []byte(strings.Join(append(report, "done"), "\n")), privateMode); err != nil {
		panic(err)
	}
}

func TestAConfinedSignerSignsAndReachesNothingElse(t *testing.T) {
	testConfined(t, newBench(t))
}

func TestAConfinedSignerReachesItsRemoteKey(t *testing.T) {
	testConfined(t, newRemoteBench(t, "vault").bench)
}

// testConfined cannot run beside others: the child process is asked by the environment.
func testConfined(t *testing.T, b *bench) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("secret"), privateMode); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.options.JournalDir, privateDirMode); err != nil {
		t.Fatal(err)
	}
	asked := probe{File: other, Address: listener.Addr().String(), Report: filepath.Join(b.options.JournalDir, "report")}
	text, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(probeVariable, string(text))
	b.startProcess(t)
	client := NewClient(b.options.Socket)
	defer client.Close()
	batch := b.batch(t, 5, 7)
	if _, err := client.Sign(t.Context(), b.draft(t, batch).bytes(t), batch); err != nil {
		t.Fatal(err)
	}
	if report, err := os.ReadFile(asked.Report); err != nil || string(report) != "done" {
		t.Fatalf("the confined signer: %s, %v", report, err)
	}
}
