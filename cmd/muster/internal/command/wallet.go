package command

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
)

const (
	depositTimeout  = 30 * time.Minute
	localNetwork    = "local"
	depositCredited = "credited"
	quietZone       = 2 // white modules around a QR code
)

func (a *App) wallet() *cobra.Command {
	return noun("wallet", groupCustomer, "The organisation's prepaid balance", a.walletShow(), a.walletDeposit(), a.walletWithdraw())
}

func (a *App) walletShow() *cobra.Command {
	var lines, deposits bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show the balance, its movements or the deposits", Example: "muster wallet show --lines", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			switch {
			case lines:
				return a.showLines(cmd.Context(), api)
			case deposits:
				return a.showDeposits(cmd.Context(), api)
			default:
				return a.showWallet(cmd.Context(), api)
			}
		},
	}
	cmd.Flags().BoolVar(&lines, "lines", false, "the movements instead, newest first")
	cmd.Flags().BoolVar(&deposits, "deposits", false, "the deposits instead, newest first")
	cmd.MarkFlagsMutuallyExclusive("lines", "deposits")
	return cmd
}

func getWallet(ctx context.Context, api *client.Client) (apiv1.Wallet, error) {
	var wallet apiv1.Wallet
	err := api.Get(ctx, "/v1/wallet", nil, &wallet)
	return wallet, err
}

func (a *App) showWallet(ctx context.Context, api *client.Client) error {
	wallet, err := getWallet(ctx, api)
	if err != nil {
		return err
	}
	return a.printer().Print(wallet, []string{output.Amount(wallet.Available)}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Available", Value: output.Cell{Text: output.Money(wallet.Available), Tone: output.Bold}},
			output.Fact{Label: "Set aside", Value: output.Text(output.Money(wallet.Held))},
			output.Fact{Label: "Spent per hour now", Value: output.Text(output.Money(wallet.SpendPerHour))},
			output.Fact{Label: "Deposit address", Value: output.Text(wallet.DepositAddress)},
			output.Fact{Label: "Its token account", Value: output.Text(wallet.DepositTokenAccount), Wide: true},
			output.Fact{Label: "Least deposit", Value: output.Text(output.Money(wallet.MinimumDeposit)), Wide: true},
		)
	})
}

func (a *App) showLines(ctx context.Context, api *client.Client) error {
	lines, err := list[apiv1.WalletLine](ctx, api, "/v1/wallet/lines", nil)
	if err != nil {
		return err
	}
	rows := make([][]output.Cell, len(lines))
	for i, l := range lines {
		rows[i] = []output.Cell{
			output.Text(output.Time(&l.At)), output.Text(l.Kind), output.Text(strings.ReplaceAll(l.Account, "_", " ")), output.Text(output.Money(l.Amount)),
			output.Text(output.Money(l.Balance)), output.Text(l.Text), output.Text(l.Signature),
		}
	}
	return a.printer().Print(lines, namesOf(lines, func(l apiv1.WalletLine) string { return l.ID.String() }), func(p *output.Page) {
		p.Table([]output.Column{
			{Head: "AT"},
			{Head: "KIND"},
			{Head: "ACCOUNT"},
			{Head: "AMOUNT", Right: true},
			{Head: "BALANCE", Right: true},
			{Head: "WHAT", Shrink: true},
			{Head: "SIGNATURE", Wide: true},
		}, rows)
	})
}

func (a *App) showDeposits(ctx context.Context, api *client.Client) error {
	deposits, err := list[apiv1.Deposit](ctx, api, "/v1/wallet/deposits", nil)
	if err != nil {
		return err
	}
	rows := make([][]output.Cell, len(deposits))
	for i, d := range deposits {
		rows[i] = []output.Cell{
			output.Text(output.Time(&d.At)), output.State(d.State), output.Text(d.Amount), output.Text(d.Reason), output.Text(d.Signature), output.Text(d.Mint),
		}
	}
	return a.printer().Print(deposits, namesOf(deposits, func(d apiv1.Deposit) string { return d.ID.String() }), func(p *output.Page) {
		p.Table([]output.Column{
			{Head: "AT"}, {Head: "STATE"}, {Head: "TOKENS", Right: true}, {Head: "REASON", Shrink: true}, {Head: "SIGNATURE", Shrink: true}, {Head: "MINT", Wide: true},
		}, rows)
	})
}

type depositFlags struct {
	amount  string
	wait    bool
	timeout time.Duration
}

func (a *App) walletDeposit() *cobra.Command {
	var flags depositFlags
	cmd := &cobra.Command{
		Use: "deposit", Short: "Show where to send tokens, and wait until they are credited",
		Long: "Shows the address that credits this organisation, as text, as a Solana Pay link and on a terminal as a QR code. On a local\n" +
			"network, --amount sends test tokens from the faucet instead: they are worth nothing.",
		Example: "muster wallet deposit --amount 100 --wait", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			return a.deposit(cmd.Context(), api, flags)
		},
	}
	cmd.Flags().StringVar(&flags.amount, "amount", "", "tokens to ask for in the link; on a local network: test tokens to send")
	cmd.Flags().BoolVarP(&flags.wait, "wait", "w", false, "wait until a deposit has arrived")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", depositTimeout, "how long to wait; 0: as long as it takes")
	return cmd
}

// network says which chain and token the server uses.
func (a *App) network(ctx context.Context) (network apiv1.Network, err error) {
	api, err := a.public()
	if err != nil {
		return network, err
	}
	err = api.Get(ctx, "/v1/network", nil, &network)
	return network, err
}

func (a *App) deposit(ctx context.Context, api *client.Client, flags depositFlags) error {
	network, err := a.network(ctx)
	if err != nil {
		return err
	}
	known, err := list[apiv1.Deposit](ctx, api, "/v1/wallet/deposits", nil)
	if err != nil {
		return err
	}
	if network.Name == localNetwork && flags.amount != "" {
		var sent apiv1.FaucetResult
		if err := api.Post(ctx, "/v1/local/faucet", apiv1.FaucetRequest{Amount: flags.amount}, &sent); err != nil {
			return err
		}
		a.say("Sent %s of TEST TOKENS on the local network. They are worth nothing.", output.Money(sent.Amount))
		if flags.wait {
			return a.waitForDeposit(ctx, api, known, flags.timeout)
		}
		a.say("They are credited once the transfer is final: `muster wallet show`.")
		return a.printer().Print(sent, []string{sent.Signature}, func(p *output.Page) { p.Line("%s", sent.Signature) })
	}
	wallet, err := getWallet(ctx, api)
	if err != nil {
		return err
	}
	if wallet.SolanaPayURL, err = withAmount(wallet.SolanaPayURL, flags.amount, network); err != nil {
		return err
	}
	if !flags.wait {
		return a.showAddress(wallet, network, a.printer())
	}
	if err := a.showAddress(wallet, network, a.errPrinter()); err != nil {
		return err
	}
	return a.waitForDeposit(ctx, api, known, flags.timeout)
}

// withAmount adds the amount to a Solana Pay link. A wallet would refuse one that the token cannot have.
func withAmount(link, amount string, network apiv1.Network) (string, error) {
	if amount == "" {
		return link, nil
	}
	if _, err := (money.Currency{Symbol: network.Symbol, Decimals: network.Decimals}).Parse(amount); err != nil {
		return "", errs.New(errs.Invalid, "--amount: %v", err)
	}
	parsed, err := url.Parse(link)
	if err != nil {
		return "", fmt.Errorf("read the payment link: %w", err)
	}
	query := parsed.Query()
	query.Set("amount", amount)
	parsed.RawQuery = query.Encode()
	return parsed.String(), nil
}

func (a *App) showAddress(wallet apiv1.Wallet, network apiv1.Network, printer output.Printer) error {
	return printer.Print(wallet, []string{wallet.DepositAddress}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Send", Value: output.Textf("%s (mint %s) on %s", network.Symbol, network.Mint, network.Name)},
			output.Fact{Label: "To", Value: output.Cell{Text: wallet.DepositAddress, Tone: output.Bold}},
			output.Fact{Label: "At least", Value: output.Text(output.Money(wallet.MinimumDeposit))},
			output.Fact{Label: "Link", Value: output.Text(wallet.SolanaPayURL)},
		)
		if network.Name == localNetwork {
			a.say("On this local network `muster wallet deposit --amount 100` sends test tokens.")
		} else if a.OutTTY {
			p.Line("")
			if code, err := qrCode(wallet.SolanaPayURL); err == nil {
				p.Line("%s", code)
			}
		}
	})
}

// qrCode draws a QR code with half blocks, light on dark as terminals are; scanners read both, but want the quiet zone.
func qrCode(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("make the QR code: %w", err)
	}
	light := func(x, y int) bool { return !code.Black(x, y) }
	var drawn strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		for x := -quietZone; x < code.Size+quietZone; x++ {
			switch upper, lower := light(x, y), light(x, y+1); {
			case upper && lower:
				drawn.WriteRune('█')
			case upper:
				drawn.WriteRune('▀')
			case lower:
				drawn.WriteRune('▄')
			default:
				drawn.WriteRune(' ')
			}
		}
		drawn.WriteByte('\n')
	}
	return strings.TrimSuffix(drawn.String(), "\n"), nil
}

// waitForDeposit waits for one that was not known before.
func (a *App) waitForDeposit(ctx context.Context, api *client.Client, known []apiv1.Deposit, timeout time.Duration) error {
	seen := make(map[string]bool, len(known))
	for _, d := range known {
		seen[d.ID.String()] = true
	}
	a.say("Waiting for the deposit to be final. Ctrl-C stops waiting; the deposit is credited all the same.")
	var arrived apiv1.Deposit
	err := a.waitFor(ctx, timeout, func(ctx context.Context) (bool, error) {
		var page apiv1.List[apiv1.Deposit]
		if err := api.Get(ctx, "/v1/wallet/deposits", nil, &page); err != nil {
			return false, err
		}
		for _, d := range page.Items {
			if !seen[d.ID.String()] {
				arrived = d
				return true, nil
			}
		}
		return false, nil
	})
	switch {
	case errors.Is(err, errTimedOut):
		return fail(exitTimeout, "no deposit arrived within %s: `muster wallet show --deposits` lists those that do later", output.Duration(timeout))
	case err != nil:
		return err
	case arrived.State != depositCredited:
		return fail(exitFailed, "%s tokens arrived and were not credited: %s", arrived.Amount, first(arrived.Reason, arrived.State))
	}
	wallet, err := getWallet(ctx, api)
	if err != nil {
		return err
	}
	a.say("Credited %s %s. Available: %s.", arrived.Amount, wallet.Available.Currency, output.Money(wallet.Available))
	return a.printer().Print(arrived, []string{arrived.ID.String()}, func(p *output.Page) { p.Line("%s", arrived.Signature) })
}
