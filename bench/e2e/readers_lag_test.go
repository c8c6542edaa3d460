package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

const laggingReaders = `[[group]]
name          = "readers"
role          = "reader"
addresses     = ["10.77.0.101", "10.77.0.102", "10.77.0.103"]
interface     = "eth0"
max_lag       = "4s"
balance_after = "2s"
allow_primary = true`

// laggingLab raises a primary with two replicas, whose daemons move addresses of readers by their lag.
func laggingLab(t *testing.T, f flavour) (l *lab.Lab, primary, one, two *lab.Node) {
	t.Helper()
	l = raise(t, func(o *lab.Options) {
		o.Server, o.Policy, o.Replicas, o.ExtraConfig = f.server, "follow", true, laggingReaders
		unhurried(o)
	})
	must(t, l.StartServers(within(t)))
	must(t, l.PrepareDaemons())
	grant(t, l, "follow", f)
	for _, n := range l.Nodes() {
		must(t, n.StartDaemon())
	}
	primary = l.Servers()[0]
	_, err := l.WaitOwner(within(t), primary.Name)
	must(t, err)
	return l, primary, others(l, primary.Name)[0], others(l, primary.Name)[1]
}

// A replica whose line to the primary is dead without its noticing says that it is 0 s behind. The measured lag puts it out of the
// reader addresses. When no replica replicates any more, the primary serves.
func TestReadersOnADeadLine(t *testing.T) {
	besides(t)
	for _, f := range deadLineFlavours() {
		t.Run(f.name, func(t *testing.T) { readersOnADeadLine(t, f) })
	}
}

func readersOnADeadLine(t *testing.T, f flavour) {
	l, primary, one, two := laggingLab(t, f)
	// The servers of the laboratory notice a dead line within seconds; by default it takes a minute.
	word := map[string]string{"mariadb": "slave", "mysql80": "replica"}[f.family]
	must(t, one.Exec(within(t), "STOP REPLICA", "SET GLOBAL "+word+"_net_timeout = 60", "START REPLICA"))
	write(t, l)
	r := read(t, l)
	even := r.come(t, l, one.Name, two.Name)
	eventually(t, "the lag is measured", func() bool { _, known := measured(t, two, one.Name); return known })

	nft := func(args ...string) {
		_, err := one.NS.Command(within(t), "nft", args...)
		must(t, err)
	}
	nft("add table ip deadline")
	nft("add chain ip deadline in { type filter hook input priority 0 ; }")
	nft(fmt.Sprintf("add rule ip deadline in ip saddr %v tcp sport %d drop", primary.Addr, lab.ServerPort))
	start := time.Now()
	wrong := false // the server said that it is not behind while it was
	var most time.Duration
	eventually(t, "the addresses have left "+one.Name, func() bool {
		own, known := lagOf(t, two, one.Name)
		if m, ok := measured(t, two, one.Name); ok && m > most {
			most = m
		}
		wrong = wrong || known && own == 0 && most >= 3*time.Second
		return spreadOver(holdings(t, l), two.Name)
	})
	t.Logf("the line of %s was dead: its addresses have moved after %v, measured lag %v", one.Name, time.Since(start).Round(time.Millisecond), most)
	if !wrong || most < 3*time.Second {
		t.Errorf("the measured lag came to %v, and the server's own figure was 0 at that time: %t", most, wrong)
	}
	behind := r.come(t, l, two.Name)
	stayed(t, even, behind, one.Name)
	nft("delete table ip deadline")
	r.come(t, l, one.Name, two.Name)

	for _, n := range []*lab.Node{one, two} {
		must(t, n.Exec(within(t), "STOP REPLICA"))
	}
	start = time.Now()
	eventually(t, "the primary serves all reader addresses", func() bool { return spreadOver(holdings(t, l), primary.Name) })
	t.Logf("no replica replicates: the primary serves readers after %v", time.Since(start).Round(time.Millisecond))
}

// lagOf is how far a node's server says that it is behind, by what another node's daemon has heard.
func lagOf(t *testing.T, at *lab.Node, node string) (time.Duration, bool) {
	return someLag(t, at, node, func(m *lab.MySQLStatus) *int64 { return m.LagMS })
}

// measured is how far it is behind as measured.
func measured(t *testing.T, at *lab.Node, node string) (time.Duration, bool) {
	return someLag(t, at, node, func(m *lab.MySQLStatus) *int64 { return m.MeasuredLagMS })
}

func someLag(t *testing.T, at *lab.Node, node string, which func(*lab.MySQLStatus) *int64) (time.Duration, bool) {
	t.Helper()
	s, err := at.Status(within(t))
	if err != nil {
		return 0, false
	}
	for _, n := range s.Nodes {
		if n.Name != node || n.MySQL == nil {
			continue
		}
		if ms := which(n.MySQL); ms != nil {
			return time.Duration(*ms) * time.Millisecond, true
		}
	}
	return 0, false
}
