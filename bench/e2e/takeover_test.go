package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/core"
)

// The owner's server dies: another node serves, after the old one has unbound, and announces with its own address. No client
// that tries to connect meanwhile is left without an answer of any kind.
func TestServerKilled(t *testing.T) {
	l := up(t, nil)
	old := l.Holder(l.VIP())
	start := time.Now()
	must(t, l.Node(old).SignalServer(syscall.SIGKILL))
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	moved := time.Now()
	must(t, l.WaitServed(within(t), l.Stream()))
	neverTwo(t, l)
	announced(t, l, next, start)
	allHeard(t, l.Stream(), start, moved)

	s, err := l.Node(next).Status(within(t))
	must(t, err)
	if s.Owner() != next || !s.Group(lab.Group).BoundHere {
		t.Errorf("%s holds the address, but its status says owner %q, bound here %v", next, s.Owner(), s.Group(lab.Group).BoundHere)
	}
}

// allHeard fails the test if an attempt of a client's that began in a stretch of time took as long as its kernel waits before
// it sends a SYN again, a second (RFC 6298, 2.1).
func allHeard(t *testing.T, s *lab.Stream, from, to time.Time) {
	t.Helper()
	must(t, s.Settle(within(t), to))
	for _, a := range s.Attempts(from) {
		if !a.Start.Before(from) && a.Start.Before(to) && a.Wait() >= time.Second {
			t.Errorf("an attempt that began %v into the move took %v: %v", a.Start.Sub(from), a.Wait(), a.Result)
		}
	}
}

// announced waits for gratuitous ARP in both forms from a node.
func announced(t *testing.T, l *lab.Lab, node string, since time.Time) {
	t.Helper()
	eventually(t, node+" has announced the address in request and reply form", func() bool {
		frames, err := l.ARPFrames()
		must(t, err)
		var request, reply bool
		for _, f := range frames {
			if f.Time.Before(since) || !f.Gratuitous() || f.SenderIP != l.VIP() || f.Node != node {
				continue
			}
			request, reply = request || !f.Reply, reply || f.Reply
		}
		return request && reply
	})
}

// The owner's whole node is silent at once, as after a power cut: no reset, no link event.
func TestOwnerVanishes(t *testing.T) {
	l := up(t, nil)
	old := l.Holder(l.VIP())
	must(t, l.Drop(old, lab.Both))
	if _, err := l.WaitMoved(within(t), old); err != nil {
		t.Fatal(err)
	}
	must(t, l.WaitServed(within(t), l.Stream()))
	must(t, l.HealAll())
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}

// One direction of the owner's network fails, then the other. Either way exactly one node ends with the address.
func TestOneWayCuts(t *testing.T) {
	l := up(t, nil)
	for _, dir := range []lab.Direction{lab.In, lab.Out} {
		old := l.Holder(l.VIP())
		must(t, l.Drop(old, dir))
		if _, err := l.WaitMoved(within(t), old); err != nil {
			t.Fatalf("direction %v: %v", dir, err)
		}
		must(t, l.HealAll())
		must(t, l.WaitStable(within(t)))
	}
	neverTwo(t, l)
}

// The network splits in two and one: the side without a majority gives up before the other binds.
func TestSplit(t *testing.T) {
	l := up(t, nil)
	old := l.Holder(l.VIP())
	var rest []string
	for _, n := range others(l, old) {
		rest = append(rest, n.Name)
	}
	must(t, l.Part([]string{old}, rest))
	if _, err := l.WaitMoved(within(t), old); err != nil {
		t.Fatal(err)
	}
	neverTwo(t, l)
	if !logged(t, l.Node(old), `"unbound"`, "the lease ran out") {
		t.Errorf("%s does not say that it gave up because its lease ran out", old)
	}
	must(t, l.HealAll())
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}

// apart waits until the owner does not lead, and returns both: leadership goes to a node that owns nothing by itself.
func apart(t *testing.T, l *lab.Lab) (owner, leader string) {
	owner = l.Holder(l.VIP())
	eventually(t, "the leader is another node than the owner", func() bool {
		var err error
		leader, err = l.Leader(within(t))
		return err == nil && leader != "" && leader != owner
	})
	return owner, leader
}

// The node that leads vanishes while another one owns: the owner keeps the address.
func TestLeaderVanishes(t *testing.T) {
	l := up(t, nil)
	owner, leader := apart(t, l)
	from := time.Now()
	must(t, l.Drop(leader, lab.Both))
	eventually(t, "the others have a new leader", func() bool {
		s, err := l.Node(owner).Status(within(t))
		return err == nil && s.Leader != "" && s.Leader != leader
	})
	if now := l.Holder(l.VIP()); now != owner {
		t.Errorf("the address went from %s to %q although only the leader %s was cut off", owner, now, leader)
	}
	events, err := l.AddrEvents()
	must(t, err)
	if gone := lab.Unowned(events, l.VIP(), from, time.Now()); gone > 0 {
		t.Errorf("the address was bound nowhere for %v", gone)
	}
	must(t, l.HealAll())
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}

// A planned switchover goes where the operator says, and its reason is in the history of every node.
func TestSwitchover(t *testing.T) {
	l := up(t, nil)
	for _, n := range others(l, l.Holder(l.VIP())) {
		must(t, l.Switchover(within(t), n.Name))
		if now := l.Holder(l.VIP()); now != n.Name {
			t.Fatalf("after the switchover to %s the address is on %q", n.Name, now)
		}
	}
	neverTwo(t, l)
	owner := l.Holder(l.VIP())
	if _, err := l.Node(owner).Remora(within(t), "switchover", lab.Group, "--to", owner); err == nil || !strings.Contains(err.Error(), "owns") {
		t.Errorf("a switchover to the owner was not refused: %v", err)
	}
	for _, n := range l.Nodes() {
		eventually(t, "the history of "+n.Name+" says why", func() bool {
			out, err := n.Remora(within(t), "history")
			must(t, err)
			return strings.Contains(string(out), core.ReasonSwitchover+owner+": asked for by")
		})
	}
}

// The leader's daemon dies while an operator moves the group: the next leader is asked, and the operator hears that it was done.
func TestSwitchoverWithoutTheLeader(t *testing.T) {
	l := up(t, nil)
	owner, leader := apart(t, l)
	to := ""
	for _, n := range others(l, owner) {
		if n.Name != leader {
			to = n.Name
		}
	}
	must(t, l.Node(leader).KillDaemon())
	must(t, l.Switchover(within(t), to))
	if now := l.Holder(l.VIP()); now != to {
		t.Errorf("after the switchover to %s the address is on %q", to, now)
	}
	neverTwo(t, l)
}

// The cable of the owner is pulled: its own link event makes it give up at once.
func TestLinkDown(t *testing.T) {
	l := up(t, nil)
	old := l.Holder(l.VIP())
	must(t, l.Node(old).SetCable(false))
	if _, err := l.WaitMoved(within(t), old); err != nil {
		t.Fatal(err)
	}
	if !logged(t, l.Node(old), `"giving up"`, "link") {
		t.Errorf("%s does not say that it gave up because of its link", old)
	}
	must(t, l.Node(old).SetCable(true))
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}
