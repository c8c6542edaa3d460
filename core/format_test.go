package core

import (
	"fmt"
	"strings"
)

// acted writes down the actions of a step. Unless everything is to be shown, heartbeats are left out: reports, rounds,
// acks, timers, and the notes of the machine's own steps stay.
func (s *script) acted(n NodeName, _ Event, as []Action) {
	for i := 0; i < len(as); i++ {
		send, ok := as[i].(Send)
		if !ok {
			if text := s.format(as[i]); text != "" {
				s.say(string(n), "%s", text)
			}
			continue
		}
		text := s.formatMessage(send.Msg)
		to := []string{string(send.To)}
		for i+1 < len(as) {
			next, ok := as[i+1].(Send)
			if !ok || s.formatMessage(next.Msg) != text {
				break
			}
			to = append(to, string(next.To))
			i++
		}
		if text != "" {
			s.say(string(n), "-> %s: %s", strings.Join(to, ","), text)
		}
	}
}

func (s *script) format(a Action) string {
	switch a := a.(type) {
	case Bind:
		return fmt.Sprintf("bind %s/%d %s on %s, not after %s", a.Group, a.Epoch, formatAddresses(a.Spec), a.Spec.Interface, s.at(a.NotAfter))
	case Extend:
		return fmt.Sprintf("extend %s/%d to %v, not after %s", a.Group, a.Epoch, a.Lifetime, s.at(a.NotAfter))
	case Unbind:
		return fmt.Sprintf("unbind %s/%d %s", a.Group, a.Epoch, formatAddresses(a.Spec))
	case Probe:
		return fmt.Sprintf("probe %s/%d %s for %v", a.Group, a.Epoch, formatAddresses(a.Spec), a.For)
	case Announce:
		return fmt.Sprintf("announce %s/%d round %d, not after %s", a.Group, a.Epoch, a.Round, s.at(a.NotAfter))
	case Propose:
		return fmt.Sprintf("propose %s", formatOps(a.Command.Ops))
	case TransferLeadership:
		return fmt.Sprintf("transfer leadership to %s", a.To)
	case Answer:
		if a.Refused != "" {
			return fmt.Sprintf("answer %d: refused, %s", a.Ticket, a.Refused)
		}
		return fmt.Sprintf("answer %d: done", a.Ticket)
	case Stopped:
		return "stopped"
	case FreezeServer:
		return fmt.Sprintf("freeze the server for %s/%d", a.Group, a.Epoch)
	case PromoteServer:
		if a.Keep {
			return fmt.Sprintf("open the server for %s/%d%s, not after %s", a.Group, a.Epoch, flagged(a.Undo, ", undoing"), s.at(a.NotAfter))
		}
		return fmt.Sprintf("promote the server for %s/%d, apply within %v, not after %s", a.Group, a.Epoch, a.ApplyWithin, s.at(a.NotAfter))
	case DemoteServer:
		return fmt.Sprintf("demote the server for %s/%d, drain %v", a.Group, a.Epoch, a.Drain)
	case CatchUpServer:
		return fmt.Sprintf("catch up with %s for %s/%d within %v", a.Executed, a.Group, a.Epoch, a.Within)
	case FollowServer:
		return fmt.Sprintf("follow %v with %s for %s/%d", a.Source, a.SourceExecuted, a.Group, a.Epoch)
	case Note:
		return formatNote(a)
	case SetTimer:
		if s.all {
			return fmt.Sprintf("timer %s", s.at(a.At))
		}
		return ""
	}
	return fmt.Sprintf("%#v", a)
}

func (s *script) at(i Instant) string { return fmt.Sprintf("%.1f", float64(i.Sub(s.start))/1e6) }

func formatNote(n Note) string {
	word := "note"
	if n.Alarm {
		word = "ALARM"
	}
	about := ""
	if n.Group != "" {
		about = fmt.Sprintf(" %s/%d", n.Group, n.Epoch)
	}
	return strings.TrimSuffix(fmt.Sprintf("%s%s %s: %s", word, about, n.Text, n.Reason), ": ")
}

func (s *script) formatMessage(m Message) string {
	switch m := m.(type) {
	case Notice:
		return "notice " + formatState(m.State)
	case ReleaseRequest:
		return fmt.Sprintf("release %s/%d please%s%s: %s", m.Group, m.Epoch, flagged(m.Unproved, " (unproved)"),
			flagged(m.Failed, " (failed)"), m.Reason)
	}
	switch m := m.(type) {
	case Freeze:
		return fmt.Sprintf("freeze for %s/%d please", m.Group, m.Epoch)
	case Frozen:
		return fmt.Sprintf("frozen for %s/%d: executed %s, received %s%s", m.Group, m.Epoch, m.Executed, m.Received, failedWith(m.Err))
	case Drained:
		return fmt.Sprintf("drained for %s/%d please: executed %s%s", m.Group, m.Epoch, m.Executed, failedWith(m.Err))
	case CaughtUp:
		return fmt.Sprintf("caught up for %s/%d please%s", m.Group, m.Epoch, failedWith(m.Err))
	}
	if !s.all {
		return ""
	}
	switch m := m.(type) {
	case Report:
		holds := ""
		for _, h := range m.Holds {
			holds += fmt.Sprintf(" %s %s/%d", h.Phase, h.Group, h.Epoch)
		}
		return fmt.Sprintf("report %d of %d: MySQL %s%s", m.Seq, m.Incarnation, m.Health.State, holds)
	case Confirm:
		return fmt.Sprintf("confirm term %d", m.Term)
	case Echo:
		return fmt.Sprintf("echo term %d", m.Term)
	case Ack:
		return fmt.Sprintf("ack report %d of %d:%s", m.Seq, m.Incarnation, formatHoldings(m.Groups))
	}
	return fmt.Sprintf("%#v", m)
}

func formatHoldings(gs []GroupEpoch) string {
	text := ""
	for _, g := range gs {
		text += fmt.Sprintf(" %s/%d", g.Group, g.Epoch)
	}
	return text
}

func formatState(g GroupState) string {
	text := fmt.Sprintf("%s/%d owner=%s", g.Spec.Name, g.Epoch, g.Owner)
	text += flagged(g.Paused, " paused") + flagged(g.Proved, " proved") + flagged(g.Retired, " retired")
	if g.Move != nil {
		text += fmt.Sprintf(" move=%s%s", g.Move.To, flagged(g.Move.Drained, " (drained)"))
	}
	if h := g.Handover; h != nil {
		text += fmt.Sprintf(" after %s/%d of %s", g.Spec.Name, h.Epoch, h.From)
	}
	if g.awaitsStart() {
		text += fmt.Sprintf(" stopped=%s", g.Advice.From)
	} else if g.Advice != nil && g.Advice.Over {
		text += fmt.Sprintf(" undo=%s", g.Advice.From)
	}
	if g.Next != nil {
		text += " next=" + formatAddresses(*g.Next)
	}
	return text
}

func formatAddresses(g GroupSpec) string {
	text := []string{}
	for _, p := range g.Addresses {
		text = append(text, p.String())
	}
	return strings.Join(text, ",")
}

func failedWith(err string) string {
	if err == "" {
		return ""
	}
	return ", failed: " + err
}

func flagged(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

func formatOps(ops []Op) string {
	texts := []string{}
	for _, op := range ops {
		texts = append(texts, formatOp(op))
	}
	return strings.Join(texts, " + ")
}

func formatOp(op Op) string {
	switch {
	case op.TakeOffice != nil:
		return fmt.Sprintf("take-office %s", op.TakeOffice.Node)
	case op.Configure != nil:
		return fmt.Sprintf("configure version %d", op.Configure.Version)
	case op.Settle != nil:
		return fmt.Sprintf("settle version %d", op.Settle.Version)
	case op.Grant != nil:
		return fmt.Sprintf("grant %s/%d to %s on report %d of %d%s (%s)", op.Grant.Group, op.Grant.Prev+1, op.Grant.To, op.Grant.Seq,
			op.Grant.Incarnation, flagged(op.Grant.Handover, " once it is given up"), op.Grant.Reason)
	case op.Release != nil:
		return fmt.Sprintf("release %s/%d of %s%s (%s)", op.Release.Group, op.Release.Epoch, op.Release.Node,
			flagged(op.Release.Unproved, ", unproved"), op.Release.Reason)
	case op.Move != nil:
		return fmt.Sprintf("move %s/%d to %s (%s)", op.Move.Group, op.Move.Epoch, op.Move.To, op.Move.Reason)
	case op.Drain != nil:
		return fmt.Sprintf("drained %s/%d: executed %s", op.Drain.Group, op.Drain.Epoch, op.Drain.Executed)
	case op.Abort != nil:
		return fmt.Sprintf("abort the move of %s/%d (%s)", op.Abort.Group, op.Abort.Epoch, op.Abort.Reason)
	case op.Pause != nil:
		return fmt.Sprintf("pause %s on=%t", op.Pause.Group, op.Pause.On)
	}
	return formatAdvice(op)
}

func formatAdvice(op Op) string {
	switch {
	case op.Advise != nil:
		return fmt.Sprintf("advise %s/%d stop %s%s (%s)", op.Advise.Group, op.Advise.Epoch, op.Advise.From, flagged(op.Advise.Online, " online")+flagged(op.Advise.Graceful, " graceful")+flagged(op.Advise.Writable, " writable"), op.Advise.By)
	case op.Withdraw != nil:
		return fmt.Sprintf("withdraw %s (%s)", op.Withdraw.Group, op.Withdraw.Reason)
	case op.Remark != nil:
		return fmt.Sprintf("remark %s (%s)", op.Remark.Group, op.Remark.Text)
	}
	return "nothing"
}
