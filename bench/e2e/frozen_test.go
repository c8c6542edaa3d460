package e2e

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/core"
)

// The tests of this file judge by what the nodes answer: a node whose daemon is dead or frozen keeps an address for a
// while that its fence lets nobody reach.

// timing returns what the laboratory's daemons use.
func timing(t *testing.T) core.Timing {
	t.Helper()
	timing, err := core.ProfileTiming("lan")
	must(t, err)
	return timing
}

// strike deals a blow to the owner and fails the test if two nodes answered or one answered beyond its lease, or if
// nobody took over in time.
func strike(t *testing.T, l *lab.Lab, opts lab.StrikeOptions) lab.Strike {
	t.Helper()
	must(t, l.WaitStable(within(t)))
	s, err := l.Strike(within(t), opts)
	must(t, err)
	t.Logf("%s: %s -> %s (owner led: %v), last answer %v after, another's first %v after; the prober paused for at most %v",
		s.Blow, s.Old, s.New, s.Led, s.LastAfter(), s.ServedAfter(), s.Pause)
	tm := timing(t)
	if err := s.Judge(tm.TTL); err != nil {
		t.Error(err)
	}
	if opts.Nap > 0 {
		return s
	}
	const busy = time.Second // what two busy cores may add
	if most := tm.TTL + core.Margin(tm.TTL) + 3*tm.RaftHeartbeat + tm.RaftElection + busy; s.ServedAfter() > most {
		t.Errorf("another node served only after %v, more than %v", s.ServedAfter(), most)
	}
	return s
}

// The owner's daemon is killed, or frozen alone or together with its server: its node stops answering when its lease is
// over, then another one serves. What wakes up gives up before anything else.
func TestOwnerKilledOrFrozen(t *testing.T) {
	l := up(t, nil)
	for _, blow := range lab.Blows() {
		t.Run(string(blow), func(t *testing.T) {
			for range 2 {
				s := strike(t, l, lab.StrikeOptions{Blow: blow})
				if blow != lab.BlowKill {
					givesUpFirst(t, l, s)
				}
			}
		})
	}
	if hs := holders(t, l, l.VIP()); len(hs) != 1 {
		t.Errorf("in the end the address is on %v", hs)
	}
}

// The owner's daemon is frozen and wakes up just before its lease is over, just then, or just after: it may keep the
// address or lose it, but never answers for it beside another node.
func TestOwnerNaps(t *testing.T) {
	l := up(t, nil)
	ttl := timing(t).TTL
	for _, nap := range []time.Duration{ttl * 7 / 10, ttl * 8 / 10, ttl * 9 / 10, ttl, ttl * 11 / 10} {
		strike(t, l, lab.StrikeOptions{Blow: lab.BlowStop, Nap: nap})
	}
}

// The judge of these tests sees what happens without a fence: it is taken away where nobody can put it back, and the node
// of the frozen daemon answers on beside the new owner.
func TestWithoutFenceTwoAnswer(t *testing.T) {
	l := up(t, nil)
	old := l.Node(l.Holder(l.VIP()))
	p, err := l.StartProber(lab.ProberOptions{})
	must(t, err)
	must(t, p.WaitAnswers(within(t), old.Name, time.Now(), 30))
	must(t, old.SignalDaemon(syscall.SIGSTOP))
	_, err = old.NS.Command(t.Context(), "nft", "flush", "ruleset")
	must(t, err)
	next, err := l.WaitMoved(within(t), old.Name)
	must(t, err)
	must(t, p.WaitAnswers(within(t), next, time.Now(), 30))
	p.Stop()
	as, err := p.Answers()
	must(t, err)
	if ds := as.DoubleAnswers(); len(ds) == 0 {
		t.Error("two nodes answered and nobody saw it")
	}
	must(t, old.SignalDaemon(syscall.SIGCONT))
	must(t, l.WaitStable(within(t)))
}

// givesUpFirst fails the test unless the first thing that the woken daemon did with the group was to give it up.
func givesUpFirst(t *testing.T, l *lab.Lab, s lab.Strike) {
	t.Helper()
	events, err := l.DaemonEvents(s.Woken, time.Now())
	must(t, err)
	for _, e := range events {
		if e.Node != s.Old || e.Attrs["group"] != lab.Group {
			continue
		}
		if e.What != "giving up" {
			t.Errorf("%s woke up, and the first thing it did was: %s %v", s.Old, e.What, e.Attrs)
		}
		return
	}
	t.Errorf("%s woke up and does not say that it gave up", s.Old)
}

// A daemon that is dead for good leaves an address that nobody reaches, and the kernel removes it.
func TestLeftoverOfTheDead(t *testing.T) {
	l := up(t, nil)
	p, err := l.StartProber(lab.ProberOptions{})
	must(t, err)
	old := l.Holder(l.VIP())
	must(t, p.WaitAnswers(within(t), old, time.Now(), 30))
	must(t, l.Node(old).KillDaemon())
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	eventually(t, "the kernel has removed the address of the dead", func() bool {
		hs := holders(t, l, l.VIP())
		return len(hs) == 1 && hs[0] == next
	})
	neverTwoAnswer(t, p)
}

// neverTwoAnswer stops a prober and fails the test if two nodes answered at once.
func neverTwoAnswer(t *testing.T, p *lab.Prober) lab.Answers {
	t.Helper()
	p.Stop()
	as, err := p.Answers()
	must(t, err)
	for _, d := range as.DoubleAnswers() {
		t.Error(d)
	}
	return as
}

// Somebody flushes the owner's nftables rules again and again: the fence is back within milliseconds, the owner stays.
// And it is back as a fence: when the daemon dies then, its node falls silent.
func TestRulesetFlushed(t *testing.T) {
	l := up(t, nil)
	owner := l.Node(l.Holder(l.VIP()))
	p, err := l.StartProber(lab.ProberOptions{})
	must(t, err)
	must(t, p.WaitAnswers(within(t), owner.Name, time.Now(), 30))
	for range 5 {
		from := time.Now()
		_, err := owner.NS.Command(t.Context(), "nft", "flush", "ruleset")
		must(t, err)
		to := fenceRestored(t, l, owner, from)
		must(t, p.WaitAnswers(within(t), owner.Name, to, 30))
		as, err := p.Answers()
		must(t, err)
		t.Logf("restored %v after the flush was begun, nobody answered for %v", to.Sub(from), as.Silence(from, time.Now()))
		if d := to.Sub(from); d > 500*time.Millisecond {
			t.Errorf("the fence was back only after %v", d)
		}
	}
	neverTwoAnswer(t, p)
	if now := l.Holder(l.VIP()); now != owner.Name {
		t.Errorf("the address went from %s to %q", owner.Name, now)
	}
	neverTwo(t, l)
	strike(t, l, lab.StrikeOptions{Blow: lab.BlowKill})
}

// fenceRestored waits until a node says that its fence was lost, which it does when it has put it back, and looks whether
// that is so.
func fenceRestored(t *testing.T, l *lab.Lab, n *lab.Node, since time.Time) (at time.Time) {
	t.Helper()
	eventually(t, n.Name+" tells of the loss of its fence", func() bool {
		events, err := l.DaemonEvents(since, time.Now())
		must(t, err)
		for _, e := range events {
			if e.Node == n.Name && strings.Contains(e.What, "fence was removed") {
				at = e.Time
			}
		}
		return !at.IsZero()
	})
	out, err := n.NS.Command(t.Context(), "nft", "list", "tables")
	must(t, err)
	for _, want := range []string{"table inet remora", "table arp remora"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s lacks %q; it has %q", n.Name, want, out)
		}
	}
	return at
}

// Somebody adds the address on another node by hand: the owner stays, the status tells, and nobody reaches the address
// where it does not belong, because the fence is closed there.
func TestAddressAddedByHand(t *testing.T) {
	l := up(t, nil)
	owner := l.Node(l.Holder(l.VIP()))
	other := others(l, owner.Name)[0]
	p, err := l.StartProber(lab.ProberOptions{})
	must(t, err)
	must(t, p.WaitAnswers(within(t), owner.Name, time.Now(), 30))
	vip := l.VIP().String() + "/32"
	_, err = other.NS.Command(t.Context(), "ip", "addr", "add", vip, "dev", lab.Interface)
	must(t, err)
	eventually(t, "the status tells where the address is", func() bool {
		return hasProblem(t, owner, "bound on "+other.Name+", but not by Remora")
	})
	must(t, p.WaitAnswers(within(t), owner.Name, time.Now(), 200))
	for _, a := range neverTwoAnswer(t, p) {
		if a.Node != owner.Name {
			t.Fatalf("%s answered for an address that was added by hand: %+v", a.Node, a)
		}
	}
	s, err := owner.Status(within(t))
	must(t, err)
	if s.Owner() != owner.Name {
		t.Errorf("the owner was %s, now it is %q", owner.Name, s.Owner())
	}
	_, err = other.NS.Command(t.Context(), "ip", "addr", "del", vip, "dev", lab.Interface)
	must(t, err)
	eventually(t, "the status no longer tells of it", func() bool { return !hasProblem(t, owner, "but not by Remora") })
	must(t, l.WaitStable(within(t)))
}

// A machine without a daemon claims the address: the owner defends it, raises an alarm, and stays.
func TestStrangerClaims(t *testing.T) {
	l := up(t, nil)
	owner := l.Node(l.Holder(l.VIP()))
	stranger := l.Router()
	vip := l.VIP().String() + "/32"
	_, err := stranger.NS.Command(t.Context(), "ip", "addr", "add", vip, "dev", lab.Interface)
	must(t, err)
	// Whoever speaks from the address to somebody new on the link claims it in the ARP request.
	dial := func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: l.VIP().AsSlice()}, Timeout: 50 * time.Millisecond}
		conn, err := d.DialContext(t.Context(), "tcp4", netip.MustParseAddrPort("10.77.0.99:1").String())
		if err == nil {
			conn.Close()
		}
		return err
	}
	if err := stranger.NS.Do(dial); err == nil {
		t.Fatal("somebody answered at an address that nobody has")
	}
	eventually(t, "the owner raises an alarm", func() bool { return logged(t, owner, `"conflict"`, stranger.MAC.String()) })
	if !hasProblem(t, owner, "Somebody else on the link has claimed an address") {
		t.Error("the status does not tell of the conflict")
	}
	s, err := owner.Status(within(t))
	must(t, err)
	if s.Owner() != owner.Name || !s.Group(lab.Group).BoundHere {
		t.Errorf("the owner was %s, now it is %q, bound here: %v", owner.Name, s.Owner(), s.Group(lab.Group).BoundHere)
	}
	_, err = stranger.NS.Command(t.Context(), "ip", "addr", "del", vip, "dev", lab.Interface)
	must(t, err)
	must(t, l.WaitServed(within(t), l.Stream()))
}

// hasProblem reports whether the status of a node tells of a problem in these words.
func hasProblem(t *testing.T, n *lab.Node, words string) bool {
	t.Helper()
	s, err := n.Status(within(t))
	must(t, err)
	for _, p := range s.Problems {
		if strings.Contains(p.Text, words) {
			return true
		}
	}
	return false
}

// The owner has a second interface on the segment, and Linux answers for all its addresses on any. The fence covers that
// one too.
func TestSecondInterface(t *testing.T) {
	l := up(t, nil)
	owner := l.Node(l.Holder(l.VIP()))
	mac, err := owner.AddInterface(t.Context(), "eth1")
	must(t, err)
	const door = "the second interface"
	p, err := l.StartProber(lab.ProberOptions{Extra: []lab.ProbedInterface{{Node: door, MAC: mac}}})
	must(t, err)
	must(t, p.WaitAnswers(within(t), door, time.Now(), 20))
	p.Stop()
	s := strike(t, l, lab.StrikeOptions{Blow: lab.BlowStop,
		Prober: lab.ProberOptions{Extra: []lab.ProbedInterface{{Node: owner.Name, MAC: mac}}}})
	if s.Old != owner.Name {
		t.Errorf("the blow was for %s, it hit %s", owner.Name, s.Old)
	}
}
