package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Report is what was seen of one step: something is done to the laboratory, and the observers watch.
type Report struct {
	Name   string
	Zero   time.Time // when it was done
	Until  time.Time // when watching ended
	Before string    // who held the VIP
	After  string
	Events []Event // of the laboratory, the observers and the daemons, sorted by time
	Client Stats
	// Unowned is the longest time for which nobody held the VIP, by the kernel's events.
	Unowned time.Duration
	// Overlaps are the times for which two nodes held the VIP, of this step alone.
	Overlaps []Overlap
}

// Step is something to do to the laboratory and to watch.
type Step struct {
	Name string
	// Act does it. It should return as soon as it is done.
	Act func(context.Context) error
	// Done waits until the laboratory has come to where the step leads; nil means that Act says so by returning.
	Done func(context.Context) error
	// Watch is how long to go on watching afterwards; zero means 300 ms.
	Watch time.Duration
}

// leadIn is how far before a step the client's last answer is looked for. A gap that had ended by then is not the step's.
const leadIn = 50 * time.Millisecond

// Run does a step and reports what was seen, also when it failed. The client stream must run.
func (l *Lab) Run(ctx context.Context, s Step) (Report, error) {
	r := Report{Name: s.Name, Before: l.Holder(l.VIP())}
	stream := l.Stream()
	if stream == nil {
		return r, errors.New("run a step: the client stream was not started")
	}
	if s.Watch <= 0 {
		s.Watch = 300 * time.Millisecond
	}
	r.Zero = time.Now()
	err := s.Act(ctx)
	if err == nil && s.Done != nil {
		err = s.Done(ctx)
	}
	select {
	case <-time.After(s.Watch):
	case <-ctx.Done():
	}
	r.Until = time.Now()
	err = errors.Join(err, stream.Settle(ctx, r.Until), l.fillReport(&r))
	if err != nil {
		return r, fmt.Errorf("%s: %w", s.Name, err)
	}
	return r, nil
}

func (l *Lab) fillReport(r *Report) error {
	from := lastAnswer(l.Stream().Attempts(r.Zero.Add(-leadIn)), r.Zero)
	r.After = l.Holder(l.VIP())
	r.Client = l.Stream().Stats(from, r.Until)
	addrs, err1 := l.AddrEvents()
	r.Unowned = Unowned(addrs, l.VIP(), r.Zero, r.Until)
	for _, o := range Overlaps(addrs, l.VIP()) {
		if o.To.IsZero() || o.To.After(r.Zero) {
			r.Overlaps = append(r.Overlaps, o)
		}
	}
	daemons, err2 := l.DaemonEvents(r.Zero, r.Until)
	_, err3 := l.ARPFrames()
	_, err4 := l.Stream().Late()
	r.Events = sortEvents(slices.Concat(l.Events(r.Zero, r.Until), daemons, r.clientEvents()))
	return errors.Join(err1, err2, err3, err4)
}

// lastAnswer returns when the last answer before zero came, or the beginning of the lead-in if none did.
func lastAnswer(attempts []Attempt, zero time.Time) time.Time {
	last := zero.Add(-leadIn)
	for _, a := range attempts {
		if a.Result == Answered && a.End.Before(zero) && a.End.After(last) {
			last = a.End
		}
	}
	return last
}

// clientEvents returns the answers at both ends of the client's gap.
func (r *Report) clientEvents() []Event {
	const notable = 50 * time.Millisecond // without a move, shorter gaps are the machine's
	a, b, servers := r.Client.GapStart, r.Client.GapEnd, r.Client.Servers
	if len(servers) == 0 || r.Before == r.After && r.Client.Gap < notable {
		return nil
	}
	return []Event{
		{Time: a, Source: SourceClient, Node: "client", What: WhatLastAnswer, Detail: "before the longest gap"},
		{Time: b, Source: SourceClient, Node: "client", What: WhatFirstAnswer,
			Detail: "after " + millis(r.Client.Gap) + " without; now from " + servers[len(servers)-1]},
	}
}

// Write prints the report for people.
func (r *Report) Write(w io.Writer, milestones []Milestone) error {
	if err := WriteLines(w, Lines(r.Events, r.Zero, milestones)); err != nil {
		return err
	}
	c := r.Client
	_, err := fmt.Fprintf(w, "  client: gap %s; %d connections, %d failed%s; longest wait of one %s; answers from %v\n",
		millis(c.Gap), c.Attempts, c.Failed, failureText(c.Failures), millis(c.Longest), c.Servers)
	for _, o := range r.Overlaps {
		_, err = fmt.Fprintf(w, "  TWO NODES HELD %v: %v from %s\n", o.Addr, o.Nodes, millis(o.From.Sub(r.Zero)))
	}
	return err
}

func failureText(failures map[Result]int) string {
	var text string
	for r := Refused; r <= Rejected; r++ {
		if n := failures[r]; n > 0 {
			text += fmt.Sprintf(", %d %v", n, r)
		}
	}
	if text == "" {
		return ""
	}
	return " (" + text[2:] + ")"
}
