package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// undisturbed is the scenario that the others are compared with.
const undisturbed = "undisturbed"

// quiet is how long the undisturbed cluster, and one that should not notice a fault, is watched.
const quiet = 2 * time.Second

// errNotNow means that what a scenario needs did not come about.
var errNotNow = errors.New("the scenario's precondition did not come about")

// scenario is a fault or an operation whose gap is measured.
type scenario struct {
	name, title string
	// limit is the greatest median gap; zero means none.
	limit time.Duration
	// noImpact means that no connection may fail or be slower than in the undisturbed runs.
	noImpact bool
	// optional means that the daemons may keep the precondition from coming about.
	optional bool
	// prepare brings the cluster to where the scenario begins and returns the step.
	prepare func(context.Context, *lab.Lab) (lab.Step, error)
}

func scenarios() []scenario {
	return []scenario{
		{name: undisturbed, title: "nothing happens",
			prepare: func(context.Context, *lab.Lab) (lab.Step, error) { return watchOnly(nothing), nil }},
		{name: "server-killed", title: "the owner's mysqld is killed", limit: 25 * time.Millisecond, prepare: serverKilled},
		{name: "switchover", title: "planned switchover", limit: 25 * time.Millisecond, prepare: switchover},
		{name: "owner-cut", title: "the owner's node is cut off, the leader is another",
			limit: 700 * time.Millisecond, prepare: ownerCut(false)},
		{name: "owner-leader-cut", title: "the owner's node is cut off, it is the leader too", optional: true,
			limit: 700 * time.Millisecond, prepare: ownerCut(true)},
		{name: "leader-cut", title: "the leader's node is cut off, another is the owner", noImpact: true, prepare: leaderCut},
	}
}

func nothing(context.Context) error { return nil }

// watchOnly is a step that should not move the address.
func watchOnly(act func(context.Context) error) lab.Step { return lab.Step{Act: act, Watch: quiet} }

// moving is a step that should move the address away from a node.
func moving(l *lab.Lab, from string, act func(context.Context) error) lab.Step {
	return lab.Step{Act: act, Done: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if _, err := l.WaitMoved(ctx, from); err != nil {
			return err
		}
		return l.WaitServed(ctx, l.Stream())
	}}
}

func serverKilled(_ context.Context, l *lab.Lab) (lab.Step, error) {
	owner := l.Holder(l.VIP())
	return moving(l, owner, func(context.Context) error { return l.Node(owner).SignalServer(syscall.SIGKILL) }), nil
}

func switchover(_ context.Context, l *lab.Lab) (lab.Step, error) {
	owner := l.Holder(l.VIP())
	to := other(l, owner)
	return moving(l, owner, func(ctx context.Context) error { return l.Switchover(ctx, to) }), nil
}

// ownerCut cuts off an owner that is the Raft leader as well, or is not.
func ownerCut(isLeader bool) func(context.Context, *lab.Lab) (lab.Step, error) {
	return func(ctx context.Context, l *lab.Lab) (lab.Step, error) {
		owner, _, err := arrange(ctx, l, isLeader)
		if err != nil {
			return lab.Step{}, err
		}
		return moving(l, owner, func(context.Context) error { return l.Drop(owner, lab.Both) }), nil
	}
}

func leaderCut(ctx context.Context, l *lab.Lab) (lab.Step, error) {
	_, leader, err := arrange(ctx, l, false)
	if err != nil {
		return lab.Step{}, err
	}
	return watchOnly(func(context.Context) error { return l.Drop(leader, lab.Both) }), nil
}

// arrange moves the address until its owner is the Raft leader, or is not. The daemons may move the leadership on their
// own, so the arrangement must hold for a moment to count.
func arrange(ctx context.Context, l *lab.Lab, same bool) (owner, leader string, err error) {
	const tries = 5
	for range tries {
		if err := l.WaitStable(ctx); err != nil {
			return "", "", err
		}
		if leader, err = l.Leader(ctx); err != nil {
			return "", "", err
		}
		owner = l.Holder(l.VIP())
		if (owner == leader) == same {
			if settled, err := holds(ctx, l, leader); err != nil || settled {
				return owner, leader, err
			}
			continue
		}
		to := leader
		if !same {
			to = other(l, leader)
		}
		if err := l.Switchover(ctx, to); err != nil {
			return "", "", err
		}
		if _, err := l.WaitOwner(ctx, to); err != nil {
			return "", "", err
		}
	}
	return "", "", fmt.Errorf("%w: owner = leader: %v, wanted %v", errNotNow, owner == leader, same)
}

// holds reports whether leader is still the leader after a while.
func holds(ctx context.Context, l *lab.Lab, leader string) (bool, error) {
	const while = 500 * time.Millisecond
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-time.After(while):
	}
	now, err := l.Leader(ctx)
	return now == leader, err
}

// other returns a node with a server that is not the named one, going round.
func other(l *lab.Lab, name string) string {
	servers := l.Servers()
	for i, n := range servers {
		if n.Name == name {
			return servers[(i+1)%len(servers)].Name
		}
	}
	return servers[0].Name
}
