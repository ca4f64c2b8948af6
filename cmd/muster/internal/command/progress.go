package command

import (
	"fmt"
	"strings"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

const stateWidth = 12

// progress shows how a cluster comes about: on a terminal as one block that is drawn anew, elsewhere a line for each change.
type progress struct {
	app   *App
	drawn int    // lines of the block on the screen
	told  string // the last line written
}

func (a *App) newProgress() *progress { return &progress{app: a} }

func (v *progress) show(c apiv1.Cluster) {
	if v.app.ErrTTY && v.app.Getenv("TERM") != "dumb" {
		v.draw(c)
		return
	}
	line := strings.ReplaceAll(c.State, "_", " ") + nodesAlive(c)
	if line != v.told {
		v.told = line
		v.app.say("%s  %s", v.app.Now().UTC().Format("15:04:05Z"), line)
	}
}

func (v *progress) draw(c apiv1.Cluster) {
	var block strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&block, "\x1b[%dA\x1b[J", v.drawn)
	}
	printer := v.app.errPrinter()
	v.drawn = 0
	for i, phase := range c.Phases {
		block.WriteString(phaseLine(printer, phase, c, i == len(c.Phases)-1))
		v.drawn++
	}
	_, _ = fmt.Fprint(v.app.Err, block.String())
}

func phaseLine(printer output.Printer, phase apiv1.Phase, c apiv1.Cluster, isLast bool) string {
	mark, state := output.Cell{Text: "+", Tone: output.Good}, output.State(phase.State)
	took, note := lasted(phase, printer.Now), ""
	switch {
	case phase.State == stateReady:
		took = ""
	case phase.State == stateFailed:
		mark, took = output.Cell{Text: "x", Tone: output.Bad}, ""
	case isLast:
		mark, note = output.Cell{Text: ">", Tone: output.Busy}, nodesAlive(c)
	default:
		state.Tone = output.Plain
	}
	padding := strings.Repeat(" ", max(stateWidth-len(state.Text), 0))
	return strings.TrimRight(fmt.Sprintf("%s %s%s %8s%s", output.Paint(mark, printer.Color), output.Paint(state, printer.Color), padding, took, note), " ") + "\n"
}

// end leaves the block as it is.
func (v *progress) end() { v.drawn = 0 }

func nodesAlive(c apiv1.Cluster) string {
	alive, wanted := 0, c.NodeCount+1
	for _, n := range c.Nodes {
		if n.State == "alive" {
			alive++
		}
	}
	if alive == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of %d nodes alive", alive, wanted)
}
