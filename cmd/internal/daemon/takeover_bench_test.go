package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/remora-ha/remora/cmd/internal/pki"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/netio"
)

// announcer tells who has announced, and does nothing else.
type announcer struct {
	name core.NodeName
	told chan<- core.NodeName
}

func (a announcer) Announce(_ context.Context, act core.Announce) error {
	if act.Round == 1 {
		a.told <- a.name
	}
	return nil
}

// benchCluster is three nodes in this process, whole but for kernel and MySQL: agents, Raft over TLS on the loopback
// interface, logs on one disk. It returns their agents, and who announces.
func benchCluster(b *testing.B, profile string) (agents map[core.NodeName]*agent.Agent, told <-chan core.NodeName) {
	b.Helper()
	timing, err := core.ProfileTiming(profile)
	fatal(b, err)
	cfg := core.Config{Version: 1, Cluster: "orders", TTL: core.Millis(timing.TTL.Milliseconds()), Groups: []core.GroupSpec{{
		Name: "writer", Role: core.Writer, Policy: core.AnyHealthy, Interface: "none", Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.100/32")}}}}
	dir := pki.Dir(b.TempDir())
	fatal(b, dir.Init(cfg.Cluster, time.Now()))
	for i := range 3 {
		n := core.NodeSpec{Name: core.NodeName(fmt.Sprint("db", i+1)), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, 0, byte(i + 1)}), 7400)}
		cfg.Nodes = append(cfg.Nodes, n)
		fatal(b, dir.Issue(string(n.Name), cfg.Cluster, time.Now()))
	}
	announced := make(chan core.NodeName, 16)
	agents = map[core.NodeName]*agent.Agent{}
	for _, n := range cfg.Nodes {
		agents[n.Name] = benchNode(b, cfg, timing, n.Name, dir, announced)
	}
	return agents, announced
}

func benchNode(b *testing.B, cfg core.Config, timing core.Timing, self core.NodeName, dir pki.Dir, told chan<- core.NodeName) *agent.Agent {
	b.Helper()
	log, now, incarnation := slog.New(slog.DiscardHandler), netio.Boottime(), core.Incarnation(random())
	late := &lateConsensus{}
	a := agent.New(agent.Config{Self: self, Clock: netio.Boottime, Alarms: newAlarm, Consensus: late, Binder: dryRun{log}, Announcer: announcer{self, told},
		Machine: core.New(core.Options{Self: self, Incarnation: incarnation, Timing: timing, Seed: random(), Start: now, Ready: now.Add(timing.TTL + core.Margin(timing.TTL))})})
	ca, _ := dir.CAFiles()
	cert, key := dir.NodeFiles(string(self))
	node, err := consensus.Open(consensus.Config{Self: self, Cluster: cfg.Cluster, Peers: cfg.Nodes, StateDir: filepath.Join(b.TempDir(), "state"), Timing: timing,
		TLS: consensus.TLSFiles{CA: ca, Cert: cert, Key: key}, Ledger: core.NewLedger(), Incarnation: incarnation,
		Deliver: a.Deliver, DeliverDatagram: a.TryDeliver, Alarms: newAlarm, Logger: log})
	fatal(b, err)
	late.Node = node
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ended
		end, done := context.WithTimeout(context.Background(), closeTimeout)
		defer done()
		if err := node.Shutdown(end); err != nil {
			b.Error(err)
		}
	})
	a.Deliver(core.ConfigOffered{Config: cfg})
	a.Deliver(core.LinkChanged{Interface: "none", Up: true})
	a.Deliver(benchHealth(core.Healthy))
	go func() {
		time.Sleep(timing.TTL + core.Margin(timing.TTL))
		if err := node.Start(ctx); err != nil && ctx.Err() == nil {
			b.Error(err)
		}
	}()
	return a
}

func benchHealth(s core.HealthState) core.HealthChanged {
	return core.HealthChanged{Health: core.Health{State: s, Writable: core.Yes, Listens: []netip.Addr{netip.IPv4Unspecified()}}}
}

func fatal(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkTakeover shows what agreement costs: from the moment at which the owner's loop is told that its server has died,
// until another node would announce. Nothing is bound, and no server is there to die.
func BenchmarkTakeover(b *testing.B) {
	for _, profile := range []string{"lan", "fast"} {
		b.Run(profile, func(b *testing.B) {
			agents, told := benchCluster(b, profile)
			next := func() core.NodeName {
				select {
				case n := <-told:
					return n
				case <-time.After(20 * time.Second):
					b.Fatal("nobody announces")
					return ""
				}
			}
			owner := next()
			var took []time.Duration
			for b.Loop() {
				settled(b, agents, owner)
				start := time.Now()
				agents[owner].Deliver(benchHealth(core.Failed))
				heir := next()
				took = append(took, time.Since(start))
				agents[owner].Deliver(benchHealth(core.Healthy))
				owner = heir
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "µs/median")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "µs/p99")
		})
	}
}

// settled waits until the owner knows two healthy peers to which the group could go.
func settled(b *testing.B, agents map[core.NodeName]*agent.Agent, owner core.NodeName) {
	b.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s, err := agents[owner].Status(b.Context())
		fatal(b, err)
		fit := 0
		for _, n := range s.Nodes {
			if n.Reachable && n.Report.Health.State == core.Healthy && n.Unfit["writer"] == "" {
				fit++
			}
		}
		if fit == len(agents) && len(s.Voters) == len(agents) && s.Leader != "" && s.View.Groups["writer"].Owner == owner {
			return
		}
	}
	b.Fatal("the cluster does not settle")
}
