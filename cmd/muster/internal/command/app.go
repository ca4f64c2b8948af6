// Package command is the command line: its tree of commands, what each asks the API, and how the answer looks.
//
// Data goes to standard output, everything else to standard error. Run is the one entry: it parses, runs, explains a failure
// and returns the exit code. What costs tokens or ends something asks first; without a terminal it wants --yes. Cancelling the
// context (Ctrl-C) stops waiting and never undoes anything. An App serves one Run at a time.
package command

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/contexts"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

const (
	pageSize = "200"
	maxPages = 100 // of a list: 20,000 items
)

// Environment variables that stand in for flags.
const (
	envServer  = "MUSTER_SERVER"
	envKey     = "MUSTER_API_KEY"
	envOrg     = "MUSTER_ORG"
	envContext = "MUSTER_CONTEXT"
)

// App is the surroundings of a run.
type App struct {
	In            io.Reader
	Out, Err      io.Writer
	InTTY, OutTTY bool
	ErrTTY        bool
	Width         int // of the terminal on standard output
	Getenv        func(string) string
	Now           func() time.Time
	Transport     http.RoundTripper
	Hostname      string
	Version       string
	Poll          time.Duration // between looks at something that is waited for
	flags         globalFlags
	file          contexts.File
	path          string
}

type globalFlags struct {
	server, org, context, output string
	curl                         bool
}

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, app App, arguments []string) int {
	a := &app
	root := a.root()
	root.SetArgs(arguments)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && a.ErrTTY {
		a.say("") // the terminal has written ^C
	}
	a.explain(err)
	return exitCode(err)
}

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use: "muster", Short: "Book GPU clusters that run Ray, and earn with GPUs of your own",
		Long: "Muster puts GPUs of many owners together into Ray clusters.\n\n" +
			"Customers: `muster login`, `muster offer ls`, `muster book`, `muster job submit`, `muster runway`.\n" +
			"Owners:    `muster login`, `muster node join`, `muster node ask`, `muster node earnings`.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, "%s", wrongFlag(cmd, err)) })
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	flags := root.PersistentFlags()
	flags.StringVar(&a.flags.server, "server", "", "address of the Muster to ask (environment: "+envServer+")")
	flags.StringVar(&a.flags.org, "org", "", "organisation to act for (environment: "+envOrg+")")
	flags.StringVar(&a.flags.context, "context", "", "context of the configuration file to use (environment: "+envContext+")")
	flags.StringVarP(&a.flags.output, "output", "o", string(output.Table), "one of: "+strings.Join(output.Formats, ", "))
	flags.BoolVar(&a.flags.curl, "curl", false, "show each request to the API as a curl command too, on standard error")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(output.Formats, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)
	root.AddGroup(
		&cobra.Group{ID: groupCustomer, Title: "For customers:"}, &cobra.Group{ID: groupOwner, Title: "For owners of GPUs:"},
		&cobra.Group{ID: groupFinance, Title: "For the platform's finance:"}, &cobra.Group{ID: groupSetup, Title: "Set-up:"},
	)
	root.AddCommand(a.offer(), a.market(), a.quote(), a.book(), a.booking(), a.cluster(), a.job(), a.wallet(), a.statement(), a.runway(), a.node(), a.payout(),
		a.reconcile(), a.verify(), a.suspense(), a.fee(), a.login(), a.context(), a.api(), a.version())
	root.SetHelpCommandGroupID(groupSetup)
	root.SetCompletionCommandGroupID(groupSetup)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(anyArgument)
	finish(root)
	return root
}

const (
	groupCustomer = "customer"
	groupOwner    = "owner"
	groupFinance  = "finance"
	groupSetup    = "setup"
)

// anyArgument makes cobra add its completion command.
const anyArgument = "help"

// prepare reads what all commands share.
func (a *App) prepare(cmd *cobra.Command) error {
	if !isOneOf(a.flags.output, output.Formats) {
		return usageError(cmd, "-o %s is not an output format: use one of %s", a.flags.output, strings.Join(output.Formats, ", "))
	}
	return a.load()
}

func (a *App) load() (err error) {
	if a.path, err = contexts.Path(a.Getenv); err != nil {
		return err
	}
	a.file, err = contexts.Load(a.path)
	return err
}

func isOneOf(text string, all []string) bool {
	for _, one := range all {
		if text == one {
			return true
		}
	}
	return false
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// target is where requests go, and as whom.
type target struct{ server, key, org, context string }

// target takes each setting from the flag, else the environment, else the context. A context's key goes to the context's own
// server only. A key belongs to one organisation, so a context's need not be sent.
func (a *App) target() (target, error) {
	name := first(a.flags.context, a.Getenv(envContext), a.file.Current)
	stored, found := a.file.Contexts[name]
	if name != "" && !found {
		return target{}, &failure{exitUsage, fmt.Errorf("there is no context %q: `muster context ls` lists them, `muster login` makes one", name)}
	}
	t := target{
		server: strings.TrimSuffix(first(a.flags.server, a.Getenv(envServer), stored.Server), "/"),
		key:    a.Getenv(envKey), org: first(a.flags.org, a.Getenv(envOrg)), context: name,
	}
	if t.server != stored.Server {
		t.context = ""
	} else if t.key == "" {
		t.key = stored.Key
	}
	return t, nil
}

// public is a client for what anyone may read. That belongs to no organisation.
func (a *App) public() (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	if t.server == "" {
		return nil, errNoServer
	}
	return client.New(t.server, t.key, "", a.transport())
}

// anyClient is a client for any request, with the key where there is one.
func (a *App) anyClient() (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	if t.server == "" {
		return nil, errNoServer
	}
	return client.New(t.server, t.key, t.org, a.transport())
}

// client is a client for what a person must be known for.
func (a *App) client() (*client.Client, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	if t.server == "" || t.key == "" {
		return nil, errNotLoggedIn
	}
	return client.New(t.server, t.key, t.org, a.transport())
}

func (a *App) transport() http.RoundTripper {
	if a.flags.curl {
		return curl{next: a.Transport, out: a.Err}
	}
	return a.Transport
}

func (a *App) printer() output.Printer {
	return output.Printer{
		Out: a.Out, Format: output.Format(a.flags.output), Color: a.OutTTY && a.mayColor(), Width: a.Width, Now: a.Now(),
	}
}

// errPrinter writes tables that accompany an answer without being it.
func (a *App) errPrinter() output.Printer {
	return output.Printer{Out: a.Err, Format: output.Table, Color: a.ErrTTY && a.mayColor(), Width: a.Width, Now: a.Now()}
}

func (a *App) mayColor() bool { return a.Getenv("NO_COLOR") == "" && a.Getenv("TERM") != "dumb" }

// say tells people something beside the answer.
func (a *App) say(format string, arguments ...any) {
	_, _ = fmt.Fprintf(a.Err, format+"\n", arguments...)
}

// list reads all pages of a list.
func list[T any](ctx context.Context, api *client.Client, path string, query url.Values) ([]T, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", pageSize)
	items := []T{}
	for range maxPages {
		var page apiv1.List[T]
		if err := api.Get(ctx, path, query, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.NextCursor == "" {
			return items, nil
		}
		query.Set("cursor", page.NextCursor)
	}
	return items, nil
}

// curl shows requests as curl commands, with the key's place instead of the key.
type curl struct {
	next http.RoundTripper
	out  io.Writer
}

// RoundTrip implements http.RoundTripper.
func (c curl) RoundTrip(request *http.Request) (*http.Response, error) {
	line := "curl"
	if request.Method != http.MethodGet {
		line += " -X " + request.Method
	}
	if request.Header.Get("Authorization") != "" {
		line += ` -H "Authorization: Bearer $` + envKey + `"`
	}
	if request.GetBody != nil {
		if body, err := request.GetBody(); err == nil {
			content, _ := io.ReadAll(body)
			line += " -H 'Content-Type: application/json' -d " + quote(string(content))
		}
	}
	_, _ = fmt.Fprintln(c.out, line+" "+quote(request.URL.String()))
	return c.next.RoundTrip(request)
}
