package lab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// Faults returns the fault suite. What is done there to an owner that does not lead, a long run does to any node.
func Faults() []Fault {
	const brief = 1200 * time.Millisecond // four leases of profile lan
	return []Fault{
		{Name: "daemon killed", Fate: Moves, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			return again(l.Node(s.Target)), l.Node(s.Target).KillDaemon()
		}},
		{Name: "daemon frozen", Fate: Moves, Begin: func(ctx context.Context, l *Lab, s Scene) (undo, error) {
			return thawed(l.Node(s.Target).SignalDaemon), l.Node(s.Target).stopped(ctx, l.Node(s.Target).SignalDaemon, l.Node(s.Target).Daemon())
		}},
		{Name: "daemon frozen on a node with two interfaces", Fate: Moves, Prepare: twofold, Begin: func(ctx context.Context, l *Lab, s Scene) (undo, error) {
			return thawed(l.Node(s.Target).SignalDaemon), l.Node(s.Target).stopped(ctx, l.Node(s.Target).SignalDaemon, l.Node(s.Target).Daemon())
		}},
		{Name: "set up anew under its old name", Fate: Moves, Forgets: true, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			n := l.Node(s.Target)
			return again(n), errors.Join(n.KillDaemon(), n.wipe())
		}},
		{Name: "server killed", Fate: Moves, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			return l.Node(s.Target).StartServer, l.Node(s.Target).KillServer()
		}},
		{Name: "server frozen", Fate: Moves, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			return thawed(l.Node(s.Target).SignalServer), l.Node(s.Target).SignalServer(syscall.SIGSTOP)
		}},
		{Name: "daemon and server frozen", Fate: Moves, Begin: func(ctx context.Context, l *Lab, s Scene) (undo, error) {
			n := l.Node(s.Target)
			return func(ctx context.Context) error { return n.recover(ctx, BlowStopBoth) }, n.suffer(ctx, BlowStopBoth)
		}},
		{Name: "cut off", Fate: Moves, Begin: dropped(Both)},
		{Name: "hears nothing", Fate: Moves, Begin: dropped(In)},
		{Name: "is not heard", Fate: Moves, Begin: dropped(Out)},
		{Name: "parted from a follower", Fate: StaysIfLed, For: brief, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			return healed(l), l.Part([]string{s.Target}, []string{s.Peer})
		}},
		{Name: "parted from the leader", Fate: Either, For: brief, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			from := s.Leader
			if from == s.Target {
				from = s.Peer
			}
			return healed(l), l.Part([]string{s.Target}, []string{from})
		}},
		{Name: "leader isolated", Fate: Stays, For: brief, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			return healed(l), l.Drop(s.Leader, Both)
		}},
		{Name: "cable pulled and put back five times", Fate: Either, Begin: flapping},
		{Name: "interface set down and up", Fate: Either, For: brief, Begin: func(ctx context.Context, l *Lab, s Scene) (undo, error) {
			n := l.Node(s.Target)
			err := errors.Join(n.SetLink(false), pause(ctx, 100*time.Millisecond))
			// The kernel forgets the routes with the interface.
			return nil, errors.Join(err, n.SetLink(true), run(ctx, "", "ip", "-n", n.NS.Name, "route", "replace", "default", "via", hostAddr4(hostRouter).String()))
		}},
		{Name: "address removed by hand", Fate: Stays, For: brief / 2, Begin: func(ctx context.Context, l *Lab, s Scene) (undo, error) {
			if l.Holder(l.VIP()) != s.Target {
				return nil, nil
			}
			return nil, run(ctx, "", "ip", "-n", l.Node(s.Target).NS.Name, "address", "del", l.VIP().String()+"/32", "dev", Interface)
		}},
		{Name: "address added by hand on another node", Fate: Stays, For: brief / 2, Begin: byHand},
		{Name: "nft flush ruleset", Fate: Stays, For: brief / 2, Begin: func(ctx context.Context, l *Lab, s Scene) (undo, error) {
			_, err := l.Node(s.Target).NS.Command(ctx, "nft", "flush", "ruleset")
			return nil, err
		}},
		{Name: "a node with another version of the configuration", Fate: Stays, For: brief, Alone: true, Begin: ahead},
		{Name: "wall clock stepped", Fate: Stays, For: brief / 2, Begin: stepped},
		{Name: "1 % of all packets lost", Fate: Either, For: brief, Begin: lossy(1)},
		{Name: "10 % of all packets lost", Fate: Either, For: brief, Begin: lossy(10)},
		{Name: "30 % of all packets lost", Fate: Either, For: brief, Begin: lossy(30)},
		{Name: "all processors busy", Fate: Either, For: 2 * brief, Begin: func(_ context.Context, l *Lab, s Scene) (undo, error) {
			end, err := l.Node(s.Target).burden()
			return func(context.Context) error { return end() }, err
		}},
		{Name: "state_dir full on all nodes, then a switchover", Fate: Moves, Needs: true, Alone: true, Begin: full},
		{Name: "disks of all nodes stand still", Fate: Stays, For: brief, Needs: true, Alone: true, Begin: func(_ context.Context, l *Lab, _ Scene) (undo, error) {
			end := func(context.Context) error {
				var errs []error
				for _, n := range l.nodes {
					errs = append(errs, n.ThawState())
				}
				return errors.Join(errs...)
			}
			for _, n := range l.nodes {
				if err := n.FreezeState(); err != nil {
					return end, err
				}
			}
			return end, nil
		}},
		{Name: "disk of the leader stands still, then a switchover", Fate: Moves, Needs: true, Alone: true, Begin: still},
	}
}

// undo ends a fault.
type undo = func(context.Context) error

func again(n *Node) undo { return func(context.Context) error { return n.StartDaemon() } }

func thawed(signal func(syscall.Signal) error) undo {
	return func(context.Context) error { return signal(syscall.SIGCONT) }
}

func healed(l *Lab) undo { return func(context.Context) error { return l.HealAll() } }

func dropped(d Direction) func(context.Context, *Lab, Scene) (undo, error) {
	return func(_ context.Context, l *Lab, s Scene) (undo, error) { return healed(l), l.Drop(s.Target, d) }
}

func lossy(percent float64) func(context.Context, *Lab, Scene) (undo, error) {
	return func(_ context.Context, l *Lab, _ Scene) (undo, error) {
		var errs []error
		for _, n := range l.nodes {
			errs = append(errs, l.Loss(n.Name, percent))
		}
		return healed(l), errors.Join(errs...)
	}
}

// flapping is over when it has begun: the cable is in at the end.
func flapping(ctx context.Context, l *Lab, s Scene) (undo, error) {
	n := l.Node(s.Target)
	in := func(context.Context) error { return n.SetCable(true) }
	for i := range 5 {
		if err := errors.Join(n.SetCable(false), pause(ctx, time.Duration(20+60*i)*time.Millisecond), n.SetCable(true),
			pause(ctx, time.Duration(200-30*i)*time.Millisecond)); err != nil {
			return in, err
		}
	}
	return in, nil
}

// byHand is what a colleague does who does not know of the daemon.
func byHand(ctx context.Context, l *Lab, s Scene) (undo, error) {
	n := l.Node(s.Peer)
	command := func(ctx context.Context, what string) error {
		return run(ctx, "", "ip", "-n", n.NS.Name, "address", what, l.VIP().String()+"/32", "dev", Interface)
	}
	if l.Holder(l.VIP()) == s.Peer {
		return nil, nil
	}
	err := command(ctx, "add")
	if err != nil && l.Holder(l.VIP()) == s.Peer {
		return nil, nil // the daemon was faster
	}
	return func(ctx context.Context) error {
		var st Status
		err := poll(ctx, 50*time.Millisecond, func() (bool, error) { // its daemon may just have been started again
			var why error
			st, why = n.Status(ctx)
			return why == nil, nil
		})
		if err == nil && st.Owner() != n.Name {
			_ = command(ctx, "del") // the daemon may have removed it, after owning it for a while
		}
		return err
	}, err
}

// elsewhere moves the address to a node that is neither the owner nor named. It asks again when the answer was lost with a
// leader.
func (l *Lab) elsewhere(ctx context.Context, s Scene, but string) error {
	i := slices.IndexFunc(l.nodes, func(n *Node) bool { return n.Name != but && n.Name != s.Owner && !n.Witness })
	if i < 0 {
		return fmt.Errorf("no node other than %s and %s", s.Owner, but)
	}
	for {
		err := l.Switchover(ctx, l.nodes[i].Name)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if now := l.Holder(l.VIP()); now != s.Owner && now != "" {
			return nil // it was carried out all the same, or another node was chosen
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// ahead gives one node a file of the next version, then the leader, which has the ledger take it over, and the others in the
// end.
func ahead(ctx context.Context, l *Lab, s Scene) (undo, error) {
	st, err := l.Node(s.Target).Status(ctx)
	if err != nil {
		return nil, err
	}
	next := st.ConfigVersion + 1
	end := func(ctx context.Context) error {
		var errs []error
		for _, n := range l.nodes {
			errs = append(errs, n.SetVersion(next))
		}
		return errors.Join(append(errs, l.waitVersion(ctx, next))...)
	}
	return end, errors.Join(l.Node(s.Target).SetVersion(next), pause(ctx, 600*time.Millisecond), l.Node(s.Leader).SetVersion(next))
}

// waitVersion waits until the ledger has a version of the configuration.
func (l *Lab) waitVersion(ctx context.Context, version int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var st Status
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		for _, n := range l.nodes {
			var why error
			if st, why = n.Status(ctx); why != nil || st.ConfigVersion != version {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait until the ledger has version %d of the configuration (%s: version %d): %w", version, st.Node, st.ConfigVersion, err)
	}
	return nil
}

func full(ctx context.Context, l *Lab, s Scene) (undo, error) {
	var frees []func() error
	end := func(context.Context) error {
		var errs []error
		for _, free := range frees {
			errs = append(errs, free())
		}
		return errors.Join(errs...)
	}
	for _, n := range l.nodes {
		free, err := n.FillState()
		if err != nil {
			return end, err
		}
		frees = append(frees, free)
	}
	return end, l.elsewhere(ctx, s, "")
}

// still freezes the leader's disk and then asks for a move, which needs a log entry: another node has to lead first. The
// address may be moved to the node whose disk stands still, for that needs no entry of its own.
func still(ctx context.Context, l *Lab, s Scene) (undo, error) {
	n := l.Node(s.Leader)
	if err := n.FreezeState(); err != nil {
		return nil, err
	}
	// The daemon asks its disk for nothing until there is something to write.
	return func(context.Context) error { return n.ThawState() }, l.elsewhere(ctx, s, n.Name)
}

func shell(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }
