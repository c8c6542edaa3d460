package sim

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// tracer writes what happens in fixed columns: true time in milliseconds, node, what came in, what is to be done. Nil
// writes nothing.
type tracer struct {
	w   *world
	out io.Writer
}

const columns = "%12.3f  %-3s  %-44s  %s\n"

func ms(d int64) time.Duration { return time.Duration(d).Round(10 * time.Microsecond) }

func (t *tracer) header() {
	if t != nil {
		fmt.Fprintf(t.out, "%12s  %-3s  %-44s  %s\n", "ms", "who", "what happened", "what is to be done")
	}
}

// line writes something that happens outside the machine.
func (t *tracer) line(n *node, what, more string) {
	if t == nil {
		return
	}
	who := "-"
	if n != nil {
		who = string(n.name)
	}
	fmt.Fprintf(t.out, columns, float64(t.w.now)/1e6, who, "* "+what, more)
}

func (t *tracer) commit(index int, e entry, outs []core.Outcome) {
	if t == nil {
		return
	}
	var b strings.Builder
	for i, op := range e.cmd.Ops {
		fmt.Fprintf(&b, "%s ", opText(op))
		if outs[i].Refused != "" {
			fmt.Fprintf(&b, "refused: %s ", outs[i].Refused)
		}
	}
	t.line(nil, fmt.Sprintf("committed %d in term %d", index, e.term), b.String())
}

// step writes an event and what the machine makes of it. Steps that neither say nor change anything are left out.
func (t *tracer) step(n *node, ev core.Event, acts []core.Action) {
	if t == nil {
		return
	}
	var b strings.Builder
	var last string
	for _, a := range acts {
		s := actionText(a)
		if s == "" || s == last {
			continue
		}
		last = s
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(s)
	}
	what := eventText(ev)
	if _, tick := ev.(core.Tick); tick && b.Len() == 0 {
		return
	}
	fmt.Fprintf(t.out, columns, float64(t.w.now)/1e6, n.name, what, b.String())
}

func eventText(ev core.Event) string {
	switch ev := ev.(type) {
	case core.Received:
		return fmt.Sprintf("%s < %s", messageText(ev.Msg), ev.From)
	case core.Committed:
		return fmt.Sprintf("committed %d in term %d", ev.Index, ev.Term)
	case core.Restored:
		return fmt.Sprintf("restored at %d", ev.View.Index)
	case core.ProposalFailed:
		return fmt.Sprintf("proposal %04x failed, known=%t", uint16(ev.ID), ev.Known)
	case core.Elected:
		return fmt.Sprintf("elected in term %d", ev.Term)
	case core.LeaderSeen:
		return fmt.Sprintf("leader seen: %s", ev.Leader)
	case core.HealthChanged:
		return fmt.Sprintf("MySQL %s, writable=%s", ev.Health.State, ev.Health.Writable)
	case core.LinkChanged:
		return fmt.Sprintf("link up=%t", ev.Up)
	case core.AddressesSeen:
		var seen []string
		for _, s := range ev {
			seen = append(seen, fmt.Sprintf("seen %v present=%t ours=%t", s.Address, s.Present, s.Ours))
		}
		return strings.Join(seen, ", ")
	case core.ConfigOffered:
		return fmt.Sprintf("configuration %d, ttl %d ms", ev.Config.Version, ev.Config.TTL)
	case core.BindDone:
		return fmt.Sprintf("bound %s/%d %s", ev.Group, ev.Epoch, ev.Err)
	case core.ExtendDone:
		return fmt.Sprintf("extended %s/%d %s", ev.Group, ev.Epoch, ev.Err)
	case core.UnbindDone:
		return fmt.Sprintf("unbound %s/%d gone=%t", ev.Group, ev.Epoch, ev.Gone)
	case core.ProbeDone:
		return fmt.Sprintf("probed %s/%d %v%s", ev.Group, ev.Epoch, ev.Conflict, ev.Err)
	case core.MoveAsked:
		return fmt.Sprintf("move of %s to %s asked", ev.Group, ev.To)
	case core.AdviceAsked:
		return fmt.Sprintf("advice on %s: stop=%t %s online=%t", ev.Group, ev.Stop, ev.Node, ev.Online)
	case core.PauseAsked:
		return fmt.Sprintf("pause of %s asked, on=%t", ev.Group, ev.On)
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", ev), "core."))
}

func messageText(m core.Message) string {
	switch m := m.(type) {
	case core.Report:
		var b strings.Builder
		fmt.Fprintf(&b, "report %d %s", m.Seq, m.Health.State)
		for _, h := range m.Holds {
			fmt.Fprintf(&b, " %s/%d %s", h.Group, h.Epoch, h.Phase)
		}
		if m.Starting {
			b.WriteString(" starting")
		}
		return b.String()
	case core.Confirm:
		return fmt.Sprintf("confirm %04x term %d", uint16(m.Nonce), m.Term)
	case core.Echo:
		return fmt.Sprintf("echo %04x term %d", uint16(m.Nonce), m.Term)
	case core.Ack:
		return fmt.Sprintf("ack %d %v", m.Seq, m.Groups)
	case core.Notice:
		return fmt.Sprintf("notice %s/%d owner %q at %d", m.Group, m.State.Epoch, m.State.Owner, m.State.Index)
	case core.ReleaseRequest:
		return fmt.Sprintf("release %s/%d", m.Group, m.Epoch)
	case core.Freeze:
		return fmt.Sprintf("freeze for %s/%d round %04x", m.Group, m.Epoch, uint16(m.Round))
	case core.Frozen:
		return fmt.Sprintf("frozen for %s/%d round %04x: executed %s, received %s %s", m.Group, m.Epoch, uint16(m.Round), m.Executed, m.Received, m.Err)
	case core.Drained:
		return fmt.Sprintf("drained %s/%d: executed %s %s", m.Group, m.Epoch, m.Executed, m.Err)
	case core.CaughtUp:
		return fmt.Sprintf("caught up %s/%d %s", m.Group, m.Epoch, m.Err)
	}
	return fmt.Sprintf("%T", m)
}

func actionText(a core.Action) string {
	switch a := a.(type) {
	case core.SetTimer:
		return ""
	case core.Send:
		if _, ok := a.Msg.(core.Report); ok {
			return messageText(a.Msg)
		}
		return fmt.Sprintf("%s > %s", messageText(a.Msg), a.To)
	case core.Bind:
		return fmt.Sprintf("BIND %s/%d", a.Group, a.Epoch)
	case core.Extend:
		return fmt.Sprintf("extend %s/%d", a.Group, a.Epoch)
	case core.Unbind:
		return fmt.Sprintf("UNBIND %s/%d", a.Group, a.Epoch)
	case core.Probe:
		return fmt.Sprintf("probe %s/%d", a.Group, a.Epoch)
	case core.Announce:
		return fmt.Sprintf("announce %s/%d round %d", a.Group, a.Epoch, a.Round)
	case core.Propose:
		var b strings.Builder
		fmt.Fprintf(&b, "propose %04x", uint16(a.Command.ID))
		for _, op := range a.Command.Ops {
			b.WriteString(" " + opText(op))
		}
		return b.String()
	case core.TransferLeadership:
		return fmt.Sprintf("transfer leadership to %s", a.To)
	case core.Note:
		return fmt.Sprintf("(%s: %s)", a.Text, a.Reason)
	case core.Answer:
		return fmt.Sprintf("answer %d %q", a.Ticket, a.Refused)
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "core."))
}

func opText(op core.Op) string {
	switch {
	case op.TakeOffice != nil:
		return fmt.Sprintf("[office %s]", op.TakeOffice.Node)
	case op.Configure != nil:
		return fmt.Sprintf("[configure %d, ttl %d ms]", op.Configure.Version, op.Configure.TTL)
	case op.Settle != nil:
		return fmt.Sprintf("[settle %d]", op.Settle.Version)
	case op.Grant != nil:
		what := "grant"
		if op.Grant.Handover {
			what = "hand over"
		}
		return fmt.Sprintf("[%s %s/%d to %s for report %d: %s]", what, op.Grant.Group, op.Grant.Prev+1, op.Grant.To, op.Grant.Seq, op.Grant.Reason)
	case op.Release != nil:
		return fmt.Sprintf("[release %s/%d: %s]", op.Release.Group, op.Release.Epoch, op.Release.Reason)
	case op.Move != nil:
		return fmt.Sprintf("[move %s/%d to %s]", op.Move.Group, op.Move.Epoch, op.Move.To)
	case op.Pause != nil:
		return fmt.Sprintf("[pause %s on=%t]", op.Pause.Group, op.Pause.On)
	case op.Advise != nil:
		return fmt.Sprintf("[advise %s/%d stop %s]", op.Advise.Group, op.Advise.Epoch, op.Advise.From)
	case op.Withdraw != nil:
		return fmt.Sprintf("[withdraw %s]", op.Withdraw.Group)
	}
	return "[?]"
}
