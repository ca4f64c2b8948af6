package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// confirm asks before something that costs or ends something. Without a terminal it wants --yes instead of guessing.
func (a *App) confirm(ctx context.Context, yes bool, format string, arguments ...any) error {
	if yes {
		return nil
	}
	question := fmt.Sprintf(format, arguments...)
	if !a.InTTY {
		return fail(exitUsage, "%s There is no terminal to ask on: add --yes (-y) to go ahead", question)
	}
	answer, err := a.ask(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return fail(exitUsage, "cancelled: nothing was done")
	}
	return nil
}

// ask reads one line from the terminal. A cancelled context ends it, although the read itself goes on until the process ends.
func (a *App) ask(ctx context.Context, question string) (string, error) {
	_, _ = fmt.Fprint(a.Err, question)
	type line struct {
		text string
		err  error
	}
	lines := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(a.In).ReadString('\n')
		lines <- line{strings.TrimSpace(text), err}
	}()
	select {
	case <-ctx.Done():
		return "", fail(exitUsage, "cancelled: nothing was done")
	case l := <-lines:
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return "", fmt.Errorf("read the answer: %w", l.err)
		}
		return l.text, nil
	}
}
