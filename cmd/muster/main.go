// Command muster is Muster's command line: a client of the HTTP API. Only `muster verify`, which is to believe nobody,
// reads the chain itself. `muster help` lists its commands, docs/cli.md shows each with an example.
package main

import (
	"context"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/muster-gpu/muster/cmd/muster/internal/command"
)

// version is set by the build (-ldflags -X main.version=...).
var version = "development"

const pollInterval = 500 * time.Millisecond

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends the process at once
	host, _ := os.Hostname()
	return command.Run(ctx, command.App{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		InTTY: isTerminal(os.Stdin), OutTTY: isTerminal(os.Stdout), ErrTTY: isTerminal(os.Stderr), Width: width(),
		Getenv: os.Getenv, Now: time.Now, Transport: http.DefaultTransport, Hostname: host, Version: version, Poll: pollInterval,
	}, os.Args[1:])
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// width is the terminal's, 0 where there is none.
func width() int {
	columns, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
