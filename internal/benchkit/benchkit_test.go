package benchkit_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/testkit"
)

const patience = time.Minute // costs nothing but where something is wrong

func TestMain(m *testing.M) { testkit.Main(m) }

func TestADatabaseIsThereUntilItIsDropped(t *testing.T) {
	t.Setenv(benchkit.Variable, testkit.DatabaseURL(t))
	database, err := benchkit.NewDatabase(t.Context(), "benchkit_test", 2)
	if err != nil {
		t.Fatal(err)
	}
	var hosts int
	if err := database.Pool.QueryRow(t.Context(), `SELECT count(*) FROM hosts`).Scan(&hosts); err != nil || hosts != 0 {
		t.Errorf("%d hosts, %v", hosts, err)
	}
	if used, err := database.CPU(t.Context()); err != nil || used <= 0 {
		t.Errorf("the server has had %s of CPU, %v", used, err)
	}
	if err := database.Drop(); err != nil {
		t.Fatal(err)
	}
	pool, err := benchkit.OpenPool(t.Context(), database.URL, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a dropped database answers %v", err)
	}
}

func TestWithoutAServerTheErrorSaysWhatToSet(t *testing.T) {
	for _, address := range []string{"", "no address"} {
		t.Setenv(benchkit.Variable, address)
		if _, err := benchkit.NewDatabase(t.Context(), "benchkit_test", 1); err == nil || !strings.Contains(err.Error(), benchkit.Variable) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	t.Parallel()
	if megabytes, err := benchkit.PeakMemory(os.Getpid()); err != nil || megabytes < 1 {
		t.Errorf("%g MB, %v", megabytes, err)
	}
	if _, err := benchkit.CPU(os.Getpid()); err != nil {
		t.Error(err)
	}
}

// TestChildrenAreCountedWhileTheyLive has a shell work until it is killed.
func TestChildrenAreCountedWhileTheyLive(t *testing.T) {
	t.Parallel()
	shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while :; do :; done")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = shell.Process.Kill(); _ = shell.Wait() }()
	testkit.Eventually(t, patience, func() (bool, string) {
		children, err := benchkit.ChildrenCPU(os.Getpid())
		return err == nil && children > 0, fmt.Sprint(children, err)
	})
	if none, err := benchkit.ChildrenCPU(shell.Process.Pid); err != nil || none != 0 {
		t.Errorf("the children of a process that has none have had %s, %v", none, err)
	}
}
