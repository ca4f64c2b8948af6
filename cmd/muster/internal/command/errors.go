package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2 // or cancelled
	exitNotLoggedIn = 4
	exitNoCapacity  = 5
	exitNoFunds     = 6
	exitJobFailed   = 100
	exitJobGoesOn   = 101
	exitJobNotFound = 102
	exitJobStopped  = 103
	exitTimeout     = 124
)

// The codes of problem documents that matter here.
const (
	codeInvalid         = "invalid"
	codeUnauthenticated = "unauthenticated"
	codeNotFound        = "not_found"
	codeNoCapacity      = "no_capacity"
	codeNoFunds         = "insufficient_funds"
	codeRateLimited     = "rate_limited"
	codeUnavailable     = "unavailable"
	codeInternal        = "internal"
)

// failure is an error with an exit code of its own.
type failure struct {
	code int
	err  error // nil: everything was said
}

// Error implements error.
func (f *failure) Error() string {
	if f.err == nil {
		return ""
	}
	return f.err.Error()
}

// Unwrap returns what went wrong.
func (f *failure) Unwrap() error { return f.err }

func fail(code int, format string, arguments ...any) error {
	return &failure{code, fmt.Errorf(format, arguments...)}
}

var (
	errNotLoggedIn = &failure{exitNotLoggedIn, errors.New(
		"not logged in: run `muster login --server URL --wallet keypair.json`, or set " + envServer + " and " + envKey)}
	errNoServer = &failure{exitNotLoggedIn, errors.New(
		"no server: run `muster login --server URL --wallet keypair.json`, or give --server or " + envServer)}
)

func usageError(cmd *cobra.Command, format string, arguments ...any) error {
	return fail(exitUsage, "%s\nSee `%s --help`.", fmt.Sprintf(format, arguments...), cmd.CommandPath())
}

// wrongFlag says what a flag takes, not which function could not read it, and which flag may be meant where there is none.
func wrongFlag(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		return err.Error() + didYouMean(flagsLike(cmd, unknown.GetSpecifiedName()))
	}
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err.Error()
	}
	flag := invalid.GetFlag()
	takes, known := map[string]string{
		"int": "a whole number", "float64": "a number", "duration": "a duration such as 20ms, 30m or 6h", "bool": "true or false",
	}[flag.Value.Type()]
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Sprintf("--%s %s is more than can be counted", flag.Name, invalid.GetValue())
	case !known:
		return err.Error()
	default:
		return fmt.Sprintf("--%s takes %s, not %q", flag.Name, takes, invalid.GetValue())
	}
}

// suggestionDistance is how many letters a name may differ by to be suggested for another.
const suggestionDistance = 2

// flagsLike are a command's flags whose names begin with or resemble a wrong one: cobra knows how to tell for commands.
func flagsLike(cmd *cobra.Command, wrong string) (near []string) {
	names := &cobra.Command{SuggestionsMinimumDistance: suggestionDistance}
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: flag.Name, Hidden: flag.Hidden, Run: func(*cobra.Command, []string) {}})
	})
	for _, name := range names.SuggestionsFor(wrong) {
		near = append(near, "--"+name)
	}
	return near
}

func didYouMean(near []string) string {
	if len(near) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(near, " or ") + "?"
}

func exitCode(err error) int {
	var own *failure
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, context.Canceled):
		return exitUsage
	}
	switch client.CodeOf(err) {
	case codeUnauthenticated:
		return exitNotLoggedIn
	case codeNoCapacity:
		return exitNoCapacity
	case codeNoFunds:
		return exitNoFunds
	case codeInvalid:
		return exitUsage
	default:
		return exitFailed
	}
}

// explain tells people what went wrong and what to do.
func (a *App) explain(err error) {
	var problem *client.Error
	var unreachable *url.Error
	switch {
	case err.Error() == "":
		return
	case errors.As(err, &problem):
		a.explainProblem(problem)
	case errors.Is(err, context.Canceled):
		a.say("muster: cancelled")
	case errors.As(err, &unreachable):
		a.say("muster: cannot reach %s: %v\nIs the address right, and does that Muster run? `muster context ls` shows what is configured.",
			addressOf(unreachable), innermost(unreachable.Err))
	default:
		a.say("muster: %v", err)
	}
}

func addressOf(e *url.Error) string {
	parsed, err := url.Parse(e.URL)
	if err != nil {
		return e.URL
	}
	return parsed.Scheme + "://" + parsed.Host
}

func innermost(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

func (a *App) explainProblem(problem *client.Error) {
	a.say("muster: %s", problem.Error())
	switch problem.Code {
	case codeUnauthenticated:
		a.say("Log in again: `muster login --server URL --wallet keypair.json`.")
	case codeNoCapacity:
		if explanation, ok := detailsOf[apiv1.Explanation](problem); ok {
			_ = a.errPrinter().Print(nil, nil, func(p *output.Page) {
				funnel(p, explanation)
				changes(p, explanation.Changes, a.Now())
			})
		}
		a.say("See what there is: `muster offer ls`.")
	case codeNoFunds:
		if short, ok := detailsOf[apiv1.Shortfall](problem); ok {
			_ = a.errPrinter().Print(nil, nil, func(p *output.Page) {
				p.Facts(output.Fact{Label: "Needed", Value: output.Text(output.Money(short.Needed))},
					output.Fact{Label: "Available", Value: output.Text(output.Money(short.Available))},
					output.Fact{Label: "Short", Value: output.Cell{Text: output.Money(short.Short), Tone: output.Bad}})
			})
		}
		a.say("Add funds: `muster wallet deposit`.")
	case codeInternal:
		if problem.RequestID != "" {
			a.say("The request id is %s.", problem.RequestID)
		}
	}
}

// detailsOf reads a problem document's details as the type that its code promises.
func detailsOf[T any](problem *client.Error) (details T, ok bool) {
	if problem.Details == nil {
		return details, false
	}
	encoded, err := json.Marshal(problem.Details)
	if err != nil {
		return details, false
	}
	return details, json.Unmarshal(encoded, &details) == nil
}

// noun is a command that only has verbs. A wrong verb is an error with suggestions, none shows the help.
func noun(use, group, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, GroupID: group, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if len(arguments) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, arguments[0])
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// or makes a noun do what one of its verbs does, where its arguments mean so.
func or(cmd, verb *cobra.Command, means func(arguments []string) bool) *cobra.Command {
	otherwise := cmd.RunE
	cmd.Flags().AddFlagSet(verb.Flags())
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if means(arguments) {
			return verb.RunE(cmd, arguments)
		}
		return otherwise(cmd, arguments)
	}
	return cmd
}

func unknownCommand(cmd *cobra.Command, wrong string) error {
	cmd.SuggestionsMinimumDistance = suggestionDistance
	return usageError(cmd, "%s has no command %q%s", cmd.CommandPath(), wrong, didYouMean(cmd.SuggestionsFor(wrong)))
}

// finish makes wrong arguments and flags of every command usage errors, and indents the examples as cobra does the rest.
func finish(root *cobra.Command) {
	root.Args = cobra.ArbitraryArgs
	root.RunE = func(cmd *cobra.Command, arguments []string) error {
		if len(arguments) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, arguments[0])
	}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Example != "" {
			cmd.Example = "  " + cmd.Example
		}
		if check := cmd.Args; check != nil {
			cmd.Args = func(cmd *cobra.Command, arguments []string) error {
				if err := check(cmd, arguments); err != nil {
					return usageError(cmd, "%v: the usage is `%s %s`", err, cmd.Parent().CommandPath(), cmd.Use)
				}
				return nil
			}
		}
		cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
				return usageError(cmd, "%v", err)
			}
			return nil
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
}
