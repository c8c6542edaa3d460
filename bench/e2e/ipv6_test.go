package e2e

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// A group has an IPv4 and an IPv6 address. Both move together, and for the IPv6 one holds what other tests show of IPv4: every
// node is asked by its own hardware address whether it answers neighbour solicitations, echo requests and SYNs.
func TestIPv6(t *testing.T) {
	vip := lab.DefaultVIP6().Addr()
	target := netip.AddrPortFrom(vip, lab.ServerPort)
	l := up(t, func(o *lab.Options) { o.VIPs = []netip.Prefix{lab.DefaultVIP(), lab.DefaultVIP6()} })
	client, err := l.StartStream(lab.StreamOptions{Target: target, Interval: 2 * time.Millisecond})
	must(t, err)
	must(t, l.WaitServed(within(t), client))

	// moves watches a move that begins with act, and fails the test unless it is in order.
	moves := func(t *testing.T, act func(old string) error) {
		old := l.Holder(vip)
		p, err := l.StartProber(lab.ProberOptions{Target: target})
		must(t, err)
		defer p.Stop()
		must(t, p.WaitAnswers(within(t), old, time.Now(), 30))
		start := time.Now()
		must(t, act(old))
		next, err := l.WaitMoved(within(t), old)
		must(t, err)
		moved := time.Now()
		for _, s := range []*lab.Stream{l.Stream(), client} {
			must(t, l.WaitServed(within(t), s))
			allHeard(t, s, start, moved)
		}
		must(t, p.WaitAnswers(within(t), next, moved, 30))
		eventually(t, next+" has announced the IPv6 address", func() bool {
			as, err := l.Announced(vip)
			must(t, err)
			return slices.ContainsFunc(as, func(a lab.Announcement) bool { return a.Node == next && a.Time.After(start) })
		})
		p.Stop()
		inOrder(t, l, p, old, next)
		if now := l.Holder(vip); now != next {
			t.Errorf("%v is on %q, and %v on %s", vip, now, l.VIP(), next)
		}
		if servers := client.Stats(moved, time.Time{}).Servers; !slices.Equal(servers, []string{next}) {
			t.Errorf("after the move %v served %v", servers, vip)
		}
	}

	t.Run("planned", func(t *testing.T) {
		moves(t, func(old string) error { return l.Switchover(within(t), others(l, old)[0].Name) })
	})
	t.Run("daemon killed", func(t *testing.T) {
		s := strike(t, l, lab.StrikeOptions{Blow: lab.BlowKill, Prober: lab.ProberOptions{Target: target}})
		if now := l.Holder(vip); s.New == "" || now != s.New {
			t.Errorf("%v was answered for by %q, and is on %q", vip, s.New, now)
		}
		must(t, l.WaitServed(within(t), client))
	})
	t.Run("server killed", func(t *testing.T) {
		moves(t, func(old string) error { return l.Node(old).SignalServer(syscall.SIGKILL) })
	})
}

// inOrder fails the test if two nodes answered a prober at once, or one announced while the other answered, and unless both
// answered questions of each kind.
func inOrder(t *testing.T, l *lab.Lab, p *lab.Prober, old, next string) {
	t.Helper()
	answers, err := p.Answers()
	must(t, err)
	for _, d := range answers.DoubleAnswers() {
		t.Error(d)
	}
	announced, err := l.Announced(p.Addr())
	must(t, err)
	for _, a := range answers.FalseAnnouncements(announced) {
		t.Errorf("%s announced %v at %v, while another node answered", a.Node, a.Addr, a.Time.Format(time.StampMicro))
	}
	for _, node := range []string{old, next} {
		for _, kind := range []lab.AnswerKind{lab.AnswerNeighbor, lab.AnswerICMP, lab.AnswerTCP} {
			if !slices.ContainsFunc(answers, func(a lab.Answer) bool { return a.Node == node && a.Kind == kind }) {
				t.Errorf("%s never answered by %v", node, kind)
			}
		}
	}
}
