package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/contexts"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/cmd/muster/internal/signin"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	keyPrefix   = "mst_"
	maxKeyBytes = 1 << 10
)

func (a *App) login() *cobra.Command {
	var wallet, key, name string
	cmd := &cobra.Command{
		Use: "login", GroupID: groupSetup, Short: "Sign in with a Solana wallet and store an API key",
		Long: "Signs in with a wallet's key file, makes an API key that lasts 90 days and stores it with the server's address as a context in\n" +
			"$XDG_CONFIG_HOME/muster/config.yaml, which only you can read. With --key an API key that you have already is stored instead;\n" +
			"--key - reads it from standard input.",
		Example: "muster login --server https://muster.example --wallet ~/.config/solana/id.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.target()
			switch {
			case err != nil && a.flags.context == "":
				return err
			case err != nil: // a context that is made now
				t.server = strings.TrimSuffix(first(a.flags.server, a.Getenv(envServer)), "/")
			}
			if t.server == "" {
				return usageError(cmd, "which Muster? Give --server")
			}
			if (wallet == "") == (key == "") {
				return usageError(cmd, "give --wallet with a key file of solana-keygen, or --key with an API key")
			}
			if key != "" {
				return a.loginWithKey(cmd.Context(), t.server, key, first(name, a.flags.context))
			}
			return a.loginWithWallet(cmd.Context(), t.server, wallet, first(name, a.flags.context))
		},
	}
	cmd.Flags().StringVar(&wallet, "wallet", "", "key file of solana-keygen to sign in with")
	cmd.Flags().StringVar(&key, "key", "", "API key to store instead, - for standard input")
	cmd.Flags().StringVar(&name, "name", "", "name of the context (default: organisation@server)")
	_ = cmd.MarkFlagFilename("wallet", "json")
	return cmd
}

func (a *App) loginWithWallet(ctx context.Context, server, path, name string) (err error) {
	wallet, err := signin.ReadKeypair(path)
	if err != nil {
		return err
	}
	session, err := signin.Start(ctx, server, a.Transport, wallet)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.End(context.WithoutCancel(ctx))) }()
	org, err := a.chooseOrganisation(ctx, session.Me)
	if err != nil {
		return err
	}
	created, err := session.CreateKey(ctx, org.OrgID, "muster on "+first(a.Hostname, "an unnamed machine"))
	if err != nil {
		return err
	}
	expires := created.ExpiresAt
	a.say("Made API key %s..., good until %s.", created.Hint, a.errPrinter().When(&expires))
	return a.storeLogin(server, created.Secret, name, session.Me, org)
}

func (a *App) loginWithKey(ctx context.Context, server, key, name string) error {
	if key == "-" {
		text, err := bufio.NewReader(io.LimitReader(a.In, maxKeyBytes)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the key: %w", err)
		}
		key = strings.TrimSpace(text)
	}
	if !strings.HasPrefix(key, keyPrefix) {
		return fail(exitUsage, "an API key begins with %s", keyPrefix)
	}
	api, err := client.New(server, key, "", a.transport())
	if err != nil {
		return err
	}
	var me apiv1.Me
	if err := api.Get(ctx, "/v1/me", nil, &me); err != nil {
		return err
	}
	if len(me.Organisations) != 1 {
		return fail(exitFailed, "this key belongs to no organisation any more")
	}
	return a.storeLogin(server, key, name, me, me.Organisations[0])
}

func (a *App) storeLogin(server, key, name string, me apiv1.Me, org apiv1.Membership) error {
	if name == "" {
		name = contextName(server, org.Name)
	}
	a.file.Set(name, contexts.Context{
		Server: server, Org: org.OrgID.String(), OrgName: org.Name, Person: first(me.Name, me.WalletAddress), Key: key,
	})
	if err := a.file.Save(a.path); err != nil {
		return err
	}
	a.say("Logged in to %s as %s of %s (%s). The context is %q.",
		server, first(me.Name, me.WalletAddress), org.Name, strings.Join(org.Roles, ", "), name)
	return nil
}

// contextName makes northwind-labs@localhost:8080.
func contextName(server, org string) string {
	host := server
	if parsed, err := url.Parse(server); err == nil {
		host = parsed.Host
	}
	slug := strings.Join(strings.FieldsFunc(strings.ToLower(org), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), "-")
	return slug + "@" + host
}

// chooseOrganisation takes the only one, the one that --org names, or the one that the person picks.
func (a *App) chooseOrganisation(ctx context.Context, me apiv1.Me) (apiv1.Membership, error) {
	wanted := first(a.flags.org, a.Getenv(envOrg))
	var choices strings.Builder
	for i, org := range me.Organisations {
		if wanted != "" && (org.OrgID.String() == wanted || strings.EqualFold(org.Name, wanted)) {
			return org, nil
		}
		fmt.Fprintf(&choices, "\n  %d  %s  %s  (%s)", i+1, org.OrgID, org.Name, strings.Join(org.Roles, ", "))
	}
	switch {
	case wanted != "":
		return apiv1.Membership{}, fail(exitUsage, "you do not belong to the organisation %q; yours are:%s", wanted, choices.String())
	case len(me.Organisations) == 1:
		return me.Organisations[0], nil
	case !a.InTTY:
		return apiv1.Membership{}, fail(exitUsage, "you belong to several organisations: choose one with --org, by id or name:%s", choices.String())
	}
	a.say("You belong to several organisations:%s", choices.String())
	answer, err := a.ask(ctx, "Which one? ")
	if err != nil {
		return apiv1.Membership{}, err
	}
	number, err := strconv.Atoi(answer)
	if err != nil || number < 1 || number > len(me.Organisations) {
		return apiv1.Membership{}, fail(exitUsage, "cancelled: %q is none of the numbers", answer)
	}
	return me.Organisations[number-1], nil
}

// contextView is a context without its key.
type contextView struct {
	Name    string  `json:"name"`
	Current bool    `json:"current"`
	Server  string  `json:"server"`
	OrgID   ids.Org `json:"org_id"`
	OrgName string  `json:"org_name"`
	Person  string  `json:"person"`
}

func (a *App) context() *cobra.Command {
	ls := &cobra.Command{
		Use: "ls", Short: "List the contexts; the current one has a star", Example: "muster context ls", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.printContexts(a.file.Names()) },
	}
	show := &cobra.Command{
		Use: "show", Short: "Show the context in use", Example: "muster context show", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			t, err := a.target()
			if err != nil {
				return err
			}
			if t.context == "" {
				return fail(exitNotLoggedIn, "no context is in use: `muster login` makes one, `muster context use NAME` chooses one")
			}
			return a.printContexts([]string{t.context})
		},
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Example: "muster context use northwind-labs@muster.example",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, arguments []string) error { return a.useContext(arguments[0]) },
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Forget a context and its key", Example: "muster context rm northwind-labs@muster.example",
		Long: "Forgets a context and its API key on this machine. The key itself stays valid until it expires or is revoked in the console.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, arguments []string) error { return a.removeContext(arguments[0]) },
	}
	return noun("context", groupSetup, "Servers and organisations that you are logged in to", ls, show, use, rm)
}

func (a *App) printContexts(names []string) error {
	views := make([]contextView, len(names))
	rows := make([][]output.Cell, len(names))
	for i, name := range names {
		c := a.file.Contexts[name]
		var org ids.Org
		if err := org.UnmarshalText([]byte(c.Org)); err != nil {
			return fmt.Errorf("context %s in %s: %w", name, a.path, err)
		}
		current := name == first(a.flags.context, a.Getenv(envContext), a.file.Current)
		views[i] = contextView{Name: name, Current: current, Server: c.Server, OrgID: org, OrgName: c.OrgName, Person: c.Person}
		mark := ""
		if current {
			mark = "*"
		}
		rows[i] = []output.Cell{{Text: mark, Tone: output.Good}, {Text: name}, {Text: c.Server}, {Text: c.OrgName}, {Text: c.Person}, {Text: c.Org}}
	}
	return a.printer().Print(views, names, func(p *output.Page) {
		if len(names) == 0 {
			a.say("There is no context yet: `muster login` makes one.")
			return
		}
		p.Table([]output.Column{{Head: ""}, {Head: "NAME"}, {Head: "SERVER"}, {Head: "ORGANISATION"}, {Head: "PERSON"}, {Head: "ORG ID", Wide: true}}, rows)
	})
}

func (a *App) useContext(name string) error {
	if _, found := a.file.Contexts[name]; !found {
		return fail(exitFailed, "there is no context %q: `muster context ls` lists them", name)
	}
	a.file.Current = name
	if err := a.file.Save(a.path); err != nil {
		return err
	}
	a.say("The context is now %q.", name)
	return nil
}

func (a *App) removeContext(name string) error {
	if _, found := a.file.Contexts[name]; !found {
		return fail(exitFailed, "there is no context %q: `muster context ls` lists them", name)
	}
	a.file.Remove(name)
	if err := a.file.Save(a.path); err != nil {
		return err
	}
	a.say("Forgot %q. Its API key stays valid until it expires or is revoked in the console.", name)
	return nil
}
