package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

func (a *App) nodeEarningCheck() *cobra.Command {
	return a.hostCommand("earning-check HOST", "Check one by one what a host needs to earn, with what to do", "muster node earning-check rack-7", cobra.ExactArgs(1),
		func(ctx context.Context, api *client.Client, id ids.Host, _ []string) error {
			var check apiv1.EarningCheck
			if err := api.Get(ctx, "/v1/hosts/"+id.String()+"/earning-check", nil, &check); err != nil {
				return err
			}
			return a.printEarningCheck(check)
		})
}

func (a *App) printEarningCheck(c apiv1.EarningCheck) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(c.Checks))
	names := make([]string, len(c.Checks))
	for i, step := range c.Checks {
		names[i] = step.Check
		lasts := ""
		if step.Since != nil && step.State != "pass" {
			lasts = printer.Age(*step.Since)
		}
		rows[i] = []output.Cell{
			output.Text(step.Check), output.State(step.State), output.Text(first(step.Measured, "-")), output.Text(first(step.Required, "-")), output.Text(lasts),
			output.Text(step.Fix),
		}
	}
	return printer.Print(c, names, func(p *output.Page) {
		p.Line("%s", c.Summary)
		p.Line("")
		p.Table([]output.Column{
			{Head: "CHECK"}, {Head: "RESULT"}, {Head: "MEASURED", Shrink: true}, {Head: "REQUIRED", Shrink: true}, {Head: "FOR", Right: true}, {Head: "WHAT TO DO"},
		}, rows)
	})
}

func (a *App) nodeRecheck() *cobra.Command {
	cmd := a.nodeSteer("recheck", "Have a host verified again, also out of quarantine")
	cmd.Long = "For a host that is quarantined for its hardware: once that is mended, it verifies itself again and is offered when it passes."
	return cmd
}

func (a *App) nodeMaintenance() *cobra.Command {
	ls := a.maintenanceLs()
	return noun("maintenance", "", "Planned absences of hosts: customers are told, new bookings keep clear of them", a.maintenancePlan(), ls, a.maintenanceCancel())
}

func maintenancePath(id ids.Host) string { return "/v1/hosts/" + id.String() + "/maintenance" }

func (a *App) maintenancePlan() *cobra.Command {
	var from, to, note string
	var length time.Duration
	cmd := a.hostCommand("plan HOST", "Plan a window in which a host is away", "muster node maintenance plan rack-7 --from 2026-11-28T22:00Z --for 2h --note 'new PSU'", cobra.ExactArgs(1),
		func(ctx context.Context, api *client.Client, id ids.Host, _ []string) error {
			plan, err := window(from, to, length, a.Now())
			if err != nil {
				return err
			}
			plan.Note = note
			var made apiv1.Maintenance
			if err := api.Post(ctx, maintenancePath(id), plan, &made); err != nil {
				return err
			}
			return a.printMaintenance([]apiv1.Maintenance{made})
		})
	cmd.Flags().StringVar(&from, "from", "", "when it begins: +2h, 2026-11-28T22:00Z")
	cmd.Flags().StringVar(&to, "to", "", "when it ends")
	cmd.Flags().DurationVar(&length, "for", 0, "how long it lasts, instead of --to")
	cmd.Flags().StringVar(&note, "note", "", "what customers are told")
	_ = cmd.MarkFlagRequired("from")
	cmd.MarkFlagsOneRequired("to", "for")
	cmd.MarkFlagsMutuallyExclusive("to", "for")
	return cmd
}

func window(from, to string, length time.Duration, now time.Time) (plan apiv1.MaintenanceCreate, err error) {
	if plan.StartsAt, err = moment(from, now); err != nil {
		return plan, fail(exitUsage, "--from %w", err)
	}
	plan.EndsAt = plan.StartsAt.Add(length)
	if to != "" {
		if plan.EndsAt, err = moment(to, now); err != nil {
			return plan, fail(exitUsage, "--to %w", err)
		}
	}
	return plan, nil
}

func (a *App) maintenanceLs() *cobra.Command {
	cmd := a.hostCommand("ls HOST", "List a host's windows, newest first", "muster node maintenance ls rack-7", cobra.ExactArgs(1),
		func(ctx context.Context, api *client.Client, id ids.Host, _ []string) error {
			windows, err := list[apiv1.Maintenance](ctx, api, maintenancePath(id), nil)
			if err != nil {
				return err
			}
			return a.printMaintenance(windows)
		})
	cmd.Aliases = []string{"list"}
	return cmd
}

func (a *App) maintenanceCancel() *cobra.Command {
	return a.hostCommand("cancel HOST WINDOW", "Give up a planned window, or end one that has begun", "muster node maintenance cancel rack-7 mw_01jd8xk4s3f5rtkq9m2v6w7x8y", cobra.ExactArgs(2),
		func(ctx context.Context, api *client.Client, id ids.Host, arguments []string) error {
			var cancelled apiv1.Maintenance
			if err := api.Post(ctx, maintenancePath(id)+"/"+arguments[0]+"/cancel", nil, &cancelled); err != nil {
				return err
			}
			return a.printMaintenance([]apiv1.Maintenance{cancelled})
		})
}

func (a *App) printMaintenance(windows []apiv1.Maintenance) error {
	rows := make([][]output.Cell, len(windows))
	for i, w := range windows {
		told := "not yet"
		if w.AnnouncedAt != nil {
			told = output.Time(w.AnnouncedAt)
		}
		rows[i] = []output.Cell{
			output.Text(w.ID.String()), output.State(w.State), output.Text(output.Time(&w.StartsAt)), output.Text(output.Duration(w.EndsAt.Sub(w.StartsAt))),
			output.Text(told), output.Text(first(w.Note, "-")),
		}
	}
	return a.printer().Print(windows, namesOf(windows, func(w apiv1.Maintenance) string { return w.ID.String() }), func(p *output.Page) {
		if len(windows) == 0 {
			a.say("There is no window: `muster node maintenance plan` makes one.")
			return
		}
		p.Table([]output.Column{
			{Head: "WINDOW"}, {Head: "STATE"}, {Head: "FROM"}, {Head: "FOR", Right: true}, {Head: "CUSTOMERS TOLD"}, {Head: "NOTE", Shrink: true},
		}, rows)
	})
}

type askFlags struct {
	floor, rules      string
	noRules, noFloor  bool
	off, on, previewd bool
}

func (a *App) nodeAsk() *cobra.Command {
	var flags askFlags
	cmd := a.hostCommand("ask HOST [TOKENS]", "Show or set a host's price, its floor and its rules; --preview shows what they would do", "muster node ask rack-7 1.90 --floor 1.20 --rules rules.yaml --preview", cobra.RangeArgs(1, 2),
		func(ctx context.Context, api *client.Client, id ids.Host, arguments []string) error {
			var host apiv1.Host
			path := "/v1/hosts/" + id.String()
			if err := api.Get(ctx, path, nil, &host); err != nil {
				return err
			}
			if len(arguments) == 0 && flags == (askFlags{}) {
				return a.printAsk(host)
			}
			ask, err := a.readAsk(host, arguments, flags)
			if err != nil {
				return err
			}
			if flags.previewd {
				var preview apiv1.AskPreview
				if err := api.Post(ctx, path+"/ask/preview", ask, &preview); err != nil {
					return err
				}
				return a.printPreview(preview)
			}
			if err := api.Do(ctx, http.MethodPut, path+"/ask", nil, nil, ask, &host); err != nil {
				return err
			}
			return a.printAsk(host)
		})
	cmd.Long = askLong
	cmd.Flags().StringVar(&flags.floor, "floor", "", "no rule goes below it")
	cmd.Flags().StringVar(&flags.rules, "rules", "", "file of rules, YAML or JSON; - is standard input")
	cmd.Flags().BoolVar(&flags.noFloor, "no-floor", false, "drop the floor")
	cmd.Flags().BoolVar(&flags.noRules, "no-rules", false, "drop the rules")
	cmd.Flags().BoolVar(&flags.previewd, "preview", false, "show what it would do and save nothing")
	cmd.Flags().BoolVar(&flags.off, "off", false, "take no new clusters")
	cmd.Flags().BoolVar(&flags.on, "on", false, "take clusters again")
	cmd.MarkFlagsMutuallyExclusive("floor", "no-floor")
	cmd.MarkFlagsMutuallyExclusive("rules", "no-rules")
	cmd.MarkFlagsMutuallyExclusive("off", "on")
	return cmd
}

const askLong = `The price per GPU-hour holds for bookings from now on; clusters that run keep theirs. What is not given stays as it is. A file of rules:

  discounts:                                  # for longer bookings
    - {from: daily, percent: 10}
    - {from: weekly, percent: 20}
  utilisation:                                # while more, or less, of the model is leased in the region
    - {above: 80, percent: 15}
    - {below: 30, percent: -10}
  calendar:                                   # UTC
    - {days: [sat, sun], from: "22:00", to: "06:00", percent: -20}
  spot_percent: 40                            # off, for spot bookings; left out: none are taken
  auction_percent: 15                         # the most below the price in an auction`

// readAsk changes what is given of a host's ask and keeps the rest.
func (a *App) readAsk(host apiv1.Host, arguments []string, flags askFlags) (apiv1.AskPut, error) {
	ask := askOf(host)
	if len(arguments) > 0 {
		ask.PricePerGPUHour = arguments[0]
	}
	if ask.PricePerGPUHour == "" {
		return ask, fail(exitUsage, "the host has no price yet: give one, such as `muster node ask %s 1.90`", host.Name)
	}
	switch {
	case flags.noFloor:
		ask.Floor = ""
	case flags.floor != "":
		ask.Floor = flags.floor
	}
	switch {
	case flags.noRules:
		ask.Rules = nil
	case flags.rules != "":
		rules, err := a.readRules(flags.rules)
		if err != nil {
			return ask, err
		}
		ask.Rules = &rules
	}
	if flags.on || flags.off {
		ask.Active = flags.on
	}
	return ask, nil
}

// askOf is the ask that a host has, as it would be set; one that is offered without a price for a host that has none.
func askOf(host apiv1.Host) apiv1.AskPut {
	if host.Ask == nil {
		return apiv1.AskPut{Active: true}
	}
	ask := apiv1.AskPut{PricePerGPUHour: host.Ask.PricePerGPUHour.Text, Active: host.Ask.Active, Rules: &host.Ask.Rules}
	if host.Ask.Floor != nil {
		ask.Floor = host.Ask.Floor.Text
	}
	return ask
}

const maxRulesFile = 64 << 10

// readRules reads YAML, of which JSON is a part, and refuses what it does not know.
func (a *App) readRules(path string) (rules apiv1.AskRules, err error) {
	in := a.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return rules, fail(exitUsage, "read the rules: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, maxRulesFile+1))
	if err != nil {
		return rules, fail(exitUsage, "read the rules: %w", err)
	}
	if len(content) > maxRulesFile {
		return rules, fail(exitUsage, "%s is larger than %d KiB: that is no file of rules", path, maxRulesFile>>10)
	}
	var document any
	if err := yaml.Unmarshal(content, &document); err != nil {
		return rules, fail(exitUsage, "%s is neither YAML nor JSON: %w", path, err)
	}
	encoded, err := json.Marshal(document)
	if err != nil {
		return rules, fail(exitUsage, "%s: %w", path, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&rules); err != nil {
		return rules, fail(exitUsage, "%s: %s", path, strings.TrimPrefix(err.Error(), "json: "))
	}
	return rules, nil
}

func (a *App) printAsk(h apiv1.Host) error {
	return a.printer().Print(h, []string{h.ID.String()}, func(p *output.Page) {
		if h.Ask == nil {
			a.say("%s has no price yet: `muster node ask %s 1.90` sets one.", h.Name, h.Name)
			return
		}
		facts := []output.Fact{
			{Label: "Host", Value: output.Text(h.Name)},
			{Label: "Price per GPU-hour", Value: output.Cell{Text: price(h), Tone: output.Bold}},
			{Label: "Floor", Value: output.Text(output.OptionalMoney(h.Ask.Floor))},
		}
		for _, rule := range ruleTexts(h.Ask.Rules) {
			facts = append(facts, output.Fact{Label: "Rule", Value: output.Text(rule)})
		}
		p.Facts(facts...)
		p.Title("Now")
		priceTable(p, h.Ask.Now)
	})
}

// ruleTexts says each rule in a line.
func ruleTexts(r apiv1.AskRules) []string {
	var lines []string
	for _, d := range r.Discounts {
		lines = append(lines, fmt.Sprintf("%d %% off %s bookings and longer ones", d.Percent, d.From))
	}
	for _, step := range r.Utilisation {
		switch {
		case step.Above != nil:
			lines = append(lines, fmt.Sprintf("%+d %% while more than %d %% are leased", step.Percent, *step.Above))
		case step.Below != nil:
			lines = append(lines, fmt.Sprintf("%+d %% while fewer than %d %% are leased", step.Percent, *step.Below))
		}
	}
	for _, period := range r.Calendar {
		lines = append(lines, fmt.Sprintf("%+d %% %s, %s to %s UTC", period.Percent, first(strings.Join(period.Days, ", "), "every day"),
			first(period.From, "00:00"), first(period.To, "24:00")))
	}
	if r.SpotPercent != nil {
		lines = append(lines, fmt.Sprintf("%d %% off spot bookings", *r.SpotPercent))
	}
	if r.AuctionPercent > 0 {
		lines = append(lines, fmt.Sprintf("bids in auctions, at most %d %% below the price", r.AuctionPercent))
	}
	return lines
}

func priceTable(p *output.Page, prices apiv1.AskPrices) {
	p.Table([]output.Column{{Head: "BOOKINGS"}, {Head: "PER GPU-HOUR", Right: true}}, [][]output.Cell{
		{output.Text("under 24 h"), output.Text(output.Money(prices.Hourly))},
		{output.Text("from 24 h"), output.Text(output.Money(prices.Daily))},
		{output.Text("from 168 h"), output.Text(output.Money(prices.Weekly))},
		{output.Text("720 h"), output.Text(output.Money(prices.Monthly))},
		{output.Text("spot"), output.Text(first(output.OptionalMoney(prices.Spot), "not taken"))},
	})
}

func (a *App) printPreview(preview apiv1.AskPreview) error {
	return a.printer().Print(preview, []string{output.Amount(preview.Now.Hourly)}, func(p *output.Page) {
		priceTable(p, preview.Now)
		p.Line("")
		facts := []output.Fact{{Label: "Among open hosts of its model and region", Value: output.Textf("%d of %d, the cheapest being 1", preview.Rank, preview.Peers)}}
		if past := preview.Past; past != nil {
			facts = append(facts, output.Fact{Label: "Would have earned in " + output.Duration(time.Duration(past.SampledMS)*time.Millisecond), Value: output.Cell{
				Text: fmt.Sprintf("about %s before the fee, hired %s of the time", output.Money(past.Earned), percent(past.HiredPercent)), Tone: output.Bold,
			}})
		}
		p.Facts(facts...)
		if len(preview.Hours) > 0 {
			p.Title("The coming week, hour by hour (UTC)")
			p.Table([]output.Column{{Head: "DAY"}, {Head: "FROM 00:00 TO 24:00"}, {Head: "LEAST", Right: true}, {Head: "MOST", Right: true}}, dayRows(preview.Hours))
		}
		a.say("Nothing is saved: leave out --preview to set it.")
	})
}

const hoursOfDay = 24

// dayRows draws each day as a line of 24 bars, all on one scale.
func dayRows(hours []apiv1.AskPriceHour) [][]output.Cell {
	var days []string
	byDay := make(map[string]priceCurve)
	for _, hour := range hours {
		day := hour.At.UTC().Format("Mon 2006-01-02")
		if byDay[day] == nil {
			days, byDay[day] = append(days, day), make(priceCurve, hoursOfDay)
		}
		byDay[day][hour.At.UTC().Hour()] = &hour.Price
	}
	all := make(priceCurve, 0, len(hours))
	for _, day := range days {
		all = append(all, byDay[day]...)
	}
	bars := []rune(output.Sparkline(all.heights(), 0))
	rows := make([][]output.Cell, len(days))
	for i, day := range days {
		row := byDay[day].row(day)
		rows[i] = []output.Cell{row[0], output.Text(string(bars[i*hoursOfDay : (i+1)*hoursOfDay])), row[2], row[3]}
	}
	return rows
}
