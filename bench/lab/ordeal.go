package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// Fate is what has to become of the address in a fault.
type Fate string

// The fates.
const (
	Moves  Fate = "moves"  // another node serves while the fault lasts
	Stays  Fate = "stays"  // the owner serves all the time
	Either Fate = "either" // the owner may keep it or lose it
	// StaysIfLed is Stays as long as the same node leads. If another begins to, the fault may part the owner from it.
	StaysIfLed Fate = "stays if led"
)

// Scene says who is who when a fault begins.
type Scene struct {
	Owner, Leader string
	// Target is whom it happens to, Peer another node, which does not lead unless the target is neither owner nor leader.
	Target, Peer string
}

// Fault is something that goes wrong.
type Fault struct {
	Name string
	// Fate is what becomes of the address if it happens to an owner that does not lead.
	Fate Fate
	// For is how long it lasts, unless the address has to move.
	For time.Duration
	// Needs is set if the state directories must be on file systems of their own, [Options.StateMiB].
	Needs bool
	// Alone is set if nothing else may go wrong meanwhile: what it does, or its end, needs daemons that are alive and disks
	// that work.
	Alone bool
	// Forgets is set if the node has lost its Raft log afterwards. That must not happen to two of three nodes at once: the
	// majority would be lost for good.
	Forgets bool
	// Prepare gives nodes further interfaces, nil if they need none. What it returns takes them away.
	Prepare func(context.Context, *Lab, Scene) ([]ProbedInterface, func(context.Context) error, error)
	// Begin lets it happen. What it returns undoes it, and is called also when the context is over.
	Begin func(context.Context, *Lab, Scene) (undo func(context.Context) error, err error)
}

// Ordeal is what was seen of a fault.
type Ordeal struct {
	Fault string
	Scene Scene
	// New is another node that answered, empty if none did. Silence is the longest time in which nobody answered, from the
	// beginning of the fault until the cluster was well again.
	New     string
	Silence time.Duration
	// Gap is the longest time in that for which the client's stream got no answer from a server; 0 without a stream.
	Gap time.Duration
	// Well is how long after the end of the fault the cluster was well again.
	Well time.Duration
	// Leader is who led when the cluster was well again.
	Leader string
	// Doubles are the times for which two nodes answered, Claims announcements of one while another one answered.
	Doubles []DoubleAnswer
	Claims  []Announcement
}

// Judge returns what was wrong. Unless the address may do either, nobody may have answered for longer than most.
func (o Ordeal) Judge(fate Fate, most time.Duration) error {
	var errs []error
	for _, d := range o.Doubles {
		errs = append(errs, errors.New(d.String()))
	}
	for _, f := range o.Claims {
		errs = append(errs, fmt.Errorf("%s announced the address at %v, while another node answered", f.Node, f.Time.Format(time.StampMicro)))
	}
	stays := fate == Stays || fate == StaysIfLed && o.Leader == o.Scene.Leader
	if stays && o.New != "" {
		errs = append(errs, fmt.Errorf("the address moved from %s to %s, and should have stayed", o.Scene.Owner, o.New))
	}
	if fate == Moves && o.New == "" {
		errs = append(errs, fmt.Errorf("the address stayed on %s, and should have moved", o.Scene.Owner))
	}
	if (stays || fate == Moves) && o.Silence > most {
		errs = append(errs, fmt.Errorf("nobody answered for %v, more than %v", o.Silence, most))
	}
	if (stays || fate == Moves) && o.Gap > most {
		errs = append(errs, fmt.Errorf("the client got no answer for %v, more than %v", o.Gap, most))
	}
	return errors.Join(errs...)
}

// LongestSilence is for how long nobody may answer in a fault in which the address has to move or to stay: a whole lease and its margin, the
// election of a leader, once more the time after which a leader whose disk stands still gives way, and a second for busy
// processors.
func LongestSilence(t core.Timing) time.Duration {
	election := 3*t.RaftHeartbeat + t.RaftElection
	return t.TTL + core.Margin(t.TTL) + election + 5*t.RaftHeartbeat + time.Second
}

// Scene finds out who owns and who leads, and sees to it that these are two nodes.
func (l *Lab) Scene(ctx context.Context) (Scene, error) {
	if err := l.WaitStable(ctx); err != nil {
		return Scene{}, err
	}
	leader, err := l.leaderWhenAgreed(ctx)
	if err != nil {
		return Scene{}, err
	}
	s := Scene{Owner: l.Holder(l.VIP()), Leader: leader}
	if s.Owner == "" { // it has begun to move since
		return l.Scene(ctx)
	}
	if s.Owner == leader {
		i := slices.IndexFunc(l.nodes, func(n *Node) bool { return n.Name != leader && !n.Witness })
		// Leadership may just be on its way to another node; the daemon then says to ask again.
		if err := l.Switchover(ctx, l.nodes[i].Name); err != nil && ctx.Err() != nil {
			return s, err
		}
		return l.Scene(ctx)
	}
	return s.aim(l, s.Owner), nil
}

// aim chooses the target, and a peer that fits.
func (s Scene) aim(l *Lab, target string) Scene {
	s.Target = target
	for _, n := range l.nodes {
		if n.Name != target && (s.Peer == "" || s.Peer == s.Leader) {
			s.Peer = n.Name
		}
	}
	return s
}

// Suffer lets a fault happen, waits until another node answers or for its time, undoes it and waits until all is well. All
// the time every node is asked whether it answers for the address.
func (l *Lab) Suffer(ctx context.Context, f Fault, s Scene) (Ordeal, error) {
	o := Ordeal{Fault: f.Name, Scene: s}
	var extra []ProbedInterface
	unprepare := func(context.Context) error { return nil }
	if f.Prepare != nil {
		var err error
		if extra, unprepare, err = f.Prepare(ctx, l, s); err != nil {
			return o, err
		}
	}
	p, err := l.StartProber(ProberOptions{Extra: extra})
	if err == nil {
		err = l.suffer(ctx, f, p, &o)
		p.Stop()
	}
	if err = errors.Join(err, unprepare(context.WithoutCancel(ctx))); err != nil {
		return o, fmt.Errorf("%s on %s (owner %s, leader %s): %w", f.Name, s.Target, s.Owner, s.Leader, err)
	}
	return o, nil
}

func (l *Lab) suffer(ctx context.Context, f Fault, p *Prober, o *Ordeal) error {
	const steady = 30
	if err := p.WaitAnswers(ctx, o.Scene.Owner, time.Now(), steady); err != nil {
		return err
	}
	l.note(Event{Source: SourceLab, Node: o.Scene.Target, What: "fault begins: " + f.Name})
	zero := time.Now()
	undo, err := f.Begin(ctx, l, o.Scene)
	if err == nil {
		if f.Fate == Moves {
			err = p.waitAnother(ctx, o.Scene.Owner, zero)
		} else {
			err = pause(ctx, f.For)
		}
	}
	ended := time.Now()
	l.note(Event{Source: SourceLab, Node: o.Scene.Target, What: "fault ends: " + f.Name})
	if undo != nil {
		healing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, undo(healing))
	}
	if err == nil {
		err = l.WaitStable(ctx)
	}
	if err != nil {
		return err
	}
	o.Well = time.Since(ended)
	if o.Leader, err = l.leaderWhenAgreed(ctx); err != nil {
		return err
	}
	if err := l.waitHolderAnswers(ctx, p, steady); err != nil {
		return err
	}
	p.Stop()
	return l.seen(p, zero, o)
}

// waitHolderAnswers waits for so many answers of the node that holds the address, which may become another one meanwhile.
func (l *Lab) waitHolderAnswers(ctx context.Context, p *Prober, count int) error {
	const patience = 2 * time.Second
	for {
		holder := l.Holder(l.VIP())
		soon, cancel := context.WithTimeout(ctx, patience)
		err := p.WaitAnswers(soon, holder, time.Now(), count)
		cancel()
		if err == nil || ctx.Err() != nil || holder == l.Holder(l.VIP()) {
			return err
		}
	}
}

// seen fills in what the observers saw.
func (l *Lab) seen(p *Prober, zero time.Time, o *Ordeal) error {
	as, err := p.Answers()
	if err != nil {
		return err
	}
	o.Doubles = as.DoubleAnswers()
	if first, ok := as.FirstBut(o.Scene.Owner, zero); ok {
		o.New = first.Node
	}
	now := time.Now()
	o.Silence = as.Silence(zero, now)
	if s := l.Stream(); s != nil {
		o.Gap = s.Stats(zero, now).Gap
	}
	announced, err := l.Announced(p.Addr())
	o.Claims = as.FalseAnnouncements(slices.DeleteFunc(announced, func(a Announcement) bool { return a.Time.Before(zero) }))
	return err
}

// burden keeps all processors busy until the function that it returns is called.
func (n *Node) burden() (end func() error, err error) {
	var ps []*Process
	end = func() error {
		var errs []error
		for _, p := range ps {
			errs = append(errs, p.Stop(time.Second))
		}
		return errors.Join(errs...)
	}
	for range 2 * runtime.NumCPU() {
		p, err := n.StartProgram("load", shell("while :; do :; done"))
		if err != nil {
			return end, err
		}
		ps = append(ps, p)
	}
	return end, nil
}

// SoakOptions say what a long run of random faults is like.
type SoakOptions struct {
	Seed  uint64
	Span  time.Duration
	Heard func(Ordeal) // each, as it ends
}

// Soak lets random faults happen to random nodes, for random times and sometimes two at once, all of it chosen by the
// seed. It ends with the first that is not as it should be.
func (l *Lab) Soak(ctx context.Context, opts SoakOptions) error {
	rng := rand.New(rand.NewPCG(opts.Seed, opts.Seed))
	faults := slices.DeleteFunc(Faults(), func(f Fault) bool { return f.Needs && l.opts.StateMiB == 0 })
	for end := time.Now().Add(opts.Span); time.Now().Before(end); {
		s, err := l.Scene(ctx)
		if err != nil {
			return err
		}
		f := faults[rng.IntN(len(faults))]
		target := s.Owner
		if rng.IntN(3) == 0 {
			target = l.nodes[rng.IntN(len(l.nodes))].Name
		}
		if g := faults[rng.IntN(len(faults))]; rng.IntN(4) == 0 && !f.Alone && !g.Alone && !(f.Forgets && g.Forgets) {
			f = both(f, g)
		}
		f.For = time.Duration(rng.Int64N(int64(1500 * time.Millisecond)))
		f.Fate = Either
		s.Peer = ""
		o, err := l.Suffer(ctx, f, s.aim(l, target))
		if err == nil {
			err = o.Judge(Either, 0)
		}
		if opts.Heard != nil {
			opts.Heard(o)
		}
		if err != nil {
			return fmt.Errorf("seed %d: %w", opts.Seed, err)
		}
	}
	return nil
}

// both lets one fault happen to the target and another one to its peer.
func both(a, b Fault) Fault {
	f := Fault{Name: a.Name + " and, on the peer, " + b.Name}
	f.Prepare = func(ctx context.Context, l *Lab, s Scene) (extra []ProbedInterface, end func(context.Context) error, err error) {
		var ends []func(context.Context) error
		end = func(ctx context.Context) error {
			var errs []error
			for _, end := range ends {
				errs = append(errs, end(ctx))
			}
			return errors.Join(errs...)
		}
		for _, one := range []Fault{a, b} {
			if one.Prepare != nil {
				more, unprepare, err := one.Prepare(ctx, l, s)
				if err != nil {
					return nil, nil, errors.Join(err, end(context.WithoutCancel(ctx)))
				}
				extra, ends = append(extra, more...), append(ends, unprepare)
			}
			s.Target, s.Peer = s.Peer, s.Target
		}
		return extra, end, nil
	}
	f.Begin = func(ctx context.Context, l *Lab, s Scene) (func(context.Context) error, error) {
		undoA, err := a.Begin(ctx, l, s)
		if err != nil {
			return undoA, err
		}
		s.Target, s.Peer = s.Peer, s.Target
		undoB, err := b.Begin(ctx, l, s)
		return func(ctx context.Context) error {
			var errs []error
			for _, undo := range []func(context.Context) error{undoB, undoA} {
				if undo != nil {
					errs = append(errs, undo(ctx))
				}
			}
			return errors.Join(errs...)
		}, err
	}
	return f
}

// String is a line for people.
func (o Ordeal) String() string {
	who := "stayed on " + o.Scene.Owner
	if o.New != "" {
		who = o.Scene.Owner + " -> " + o.New
	}
	on := o.Scene.Target
	var marks []string
	if on == o.Scene.Owner {
		marks = append(marks, "owner")
	}
	if on == o.Scene.Leader {
		marks = append(marks, "leader")
	}
	if len(marks) > 0 {
		on += " (" + strings.Join(marks, ", ") + ")"
	}
	return fmt.Sprintf("%-46s on %-20s %-14s nobody answered for %7s, client's gap %7s, well after %8s, double answers %d",
		o.Fault, on, who, millis(o.Silence), millis(o.Gap), millis(o.Well), len(o.Doubles)+len(o.Claims))
}
