package core

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const readerSource = "10.77.0.9:3306"

// How old what a server shows is counts on while it does not replicate, and whether it may serve readers hangs on that alone.
func TestReaders_AgeOfAReplica(t *testing.T) {
	replica := func(running Tri, lag time.Duration) Health {
		return Health{State: Healthy, Writable: No, Source: readerSource, Replicating: running, Lag: lag}
	}
	const s = time.Second
	none := Health{State: Healthy, Writable: Yes, Replicating: No, Lag: -1}
	orphan := Health{State: Healthy, Writable: No, Replicating: No, Lag: -1}
	for _, tt := range []struct {
		name    string
		reading Reading
		looks   []Health // one each second; asked one second after the last
		early   time.Duration
		want    string // part of the reason, empty if it may serve
	}{
		{"replicates", Reading{MaxLag: 5000}, []Health{replica(Yes, 0)}, 0, ""},
		{"at the limit", Reading{MaxLag: 5000}, []Health{replica(Yes, 5*s)}, s, ""},
		{"beyond the limit", Reading{MaxLag: 5000}, []Health{replica(Yes, 6*s)}, 0, "6s behind, and max_lag is 5s"},
		{"the default limit", Reading{}, []Health{replica(Yes, 31*s)}, 0, "max_lag is 30s"},
		{"it has caught up", Reading{MaxLag: 5000}, []Health{replica(Yes, 6*s), replica(Yes, 2*s)}, 0, ""},
		{"it was never seen to replicate", Reading{}, []Health{replica(No, -1)}, 0, "nobody knows how old"},
		{"it does not replicate since a moment", Reading{MaxLag: 5000}, []Health{replica(Yes, 2*s), replica(No, -1)}, 0, ""},
		{"and since long", Reading{MaxLag: 5000}, []Health{replica(Yes, 2*s), replica(No, -1), replica(No, -1), replica(No, -1), replica(No, -1)}, 0, "for so long"},
		{"the arbiter is more careful", Reading{MaxLag: 5000}, []Health{replica(Yes, 4*s), replica(No, -1)}, s, "for so long"},
		{"its state is not known since a moment", Reading{MaxLag: 5000}, []Health{replica(Yes, 0), replica(Unknown, -1)}, 0, ""},
		{"it was down meanwhile", Reading{}, []Health{replica(Yes, 0), {State: Failed}, replica(No, -1)}, 0, "nobody knows how old"},
		{"a primary", Reading{}, []Health{none}, 0, "no replica"},
		{"a primary, allowed", Reading{AllowPrimary: true}, []Health{none}, 0, ""},
		{"an orphan", Reading{AllowPrimary: true}, []Health{orphan}, 0, "may be old"},
		{"nothing is known", Reading{AllowPrimary: true}, []Health{{State: Healthy, Writable: Yes, Lag: -1}}, 0, "not known whether"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var a age
			now := Instant(0)
			for _, h := range tt.looks {
				now = now.Add(s)
				a.looked(now, h)
			}
			got := tt.reading.readable(now.Add(s), tt.looks[len(tt.looks)-1], a, tt.early)
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Where Remora promotes, readers are kept from a server that may be written to and that does not have the group.
func TestI10_ReadersStayAwayFromStrayWriters(t *testing.T) {
	promoted := GroupState{Spec: GroupSpec{Name: "writer", Policy: Promote}}
	for _, tt := range []struct {
		name     string
		group    GroupState
		writable Tri
		owns     bool
		want     bool
	}{
		{"read-only", promoted, No, false, true},
		{"writable", promoted, Yes, false, false},
		{"who knows", promoted, Unknown, false, false},
		{"writable and the owner", promoted, Yes, true, true},
		{"nobody promotes", GroupState{}, Yes, false, true},
	} {
		if got := writesApart(tt.group, Health{Writable: tt.writable}, tt.owns) == ""; got != tt.want {
			t.Errorf("%s: may read there %t, want %t", tt.name, got, tt.want)
		}
	}
}

// readerCluster has a pool of addresses over nodes of random priority, and a witness that leads.
func readerCluster(t *testing.T, r *rand.Rand, nodes, addresses int) *cluster {
	cfg := Config{Version: 1, Cluster: "test", TTL: Millis(soloTTL.Milliseconds())}
	for i := range nodes + 1 {
		cfg.Nodes = append(cfg.Nodes, NodeSpec{Name: NodeName(fmt.Sprintf("n%d", i+1)), Priority: r.IntN(3), Witness: i == nodes,
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), 7400)})
	}
	for i := range addresses {
		a := netip.AddrFrom4([4]byte{10, 77, 0, byte(101 + i)})
		cfg.Groups = append(cfg.Groups, GroupSpec{Name: "r/" + GroupName(a.String()), Role: Reader, Pool: "r", Interface: "eth0",
			Reading: Reading{BalanceAfter: 3000}, Addresses: []netip.Prefix{netip.PrefixFrom(a, 32)}})
	}
	timing := soloTiming(t)
	timing.CoolDown = 2 * time.Second
	c := newCluster(t, cfg, timing)
	for _, n := range cfg.Nodes[:nodes] {
		c.nodes[n.Name].health = readerHealth(Yes)
	}
	for _, n := range cfg.Nodes {
		c.boot(n.Name)
	}
	c.elect(cfg.Nodes[nodes].Name)
	c.run(time.Second)
	return c
}

func readerHealth(running Tri) Health {
	return Health{State: Healthy, Writable: No, Source: readerSource, Replicating: running}
}

// ownersOf returns who owns each group by the ledger.
func (c *cluster) ownersOf() map[GroupName]NodeName {
	owners := map[GroupName]NodeName{}
	for name, g := range c.nodes[c.leader].ledger.View().Groups {
		owners[name] = g.Owner
	}
	return owners
}

// apart is how many more addresses the node with the most has than the one with the fewest, of those that are well.
func apart(owners map[GroupName]NodeName, well []NodeName) int {
	counts := map[NodeName]int{}
	for _, o := range owners {
		counts[o]++
	}
	low, high := len(owners), 0
	for _, n := range well {
		low, high = min(low, counts[n]), max(high, counts[n])
	}
	return high - low
}

// Whatever happens to the servers: a node that is lost loses its own addresses and moves no others, one that returns gets no more
// than the balance asks for, and once all is quiet no node has two more than another.
func TestReaders_SpreadWithTheLeastMovement(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes, addresses := 2+r.IntN(3), 1+r.IntN(7)
		c := readerCluster(t, r, nodes, addresses)
		well := append([]NodeName{}, c.names[:nodes]...)
		if d := apart(c.ownersOf(), well); d > 1 {
			t.Fatalf("seed %d: at the start %v", seed, c.ownersOf())
		}
		for range 6 {
			before := c.ownersOf()
			i := r.IntN(len(well))
			n := well[i]
			if len(well) > 1 && r.IntN(2) == 0 {
				c.nodes[n].health = Health{State: Failed, Reason: "connection refused"}
				well = append(well[:i:i], well[i+1:]...)
			} else if n = c.names[r.IntN(nodes)]; c.nodes[n].health.State == Failed {
				c.nodes[n].health = readerHealth(Yes)
				well = append(well, n)
			}
			c.step(n, HealthChanged{Health: c.nodes[n].health})
			c.run(2 * time.Second)
			for name, o := range c.ownersOf() {
				if before[name] != n && o != before[name] {
					t.Errorf("seed %d: %s went from %s to %s when %s changed", seed, name, before[name], o, n)
				}
				if o == "" {
					t.Errorf("seed %d: nobody owns %s", seed, name)
				}
			}
			unbalanced, settled := c.ownersOf(), 0
			c.run(20 * time.Second)
			after := c.ownersOf()
			for name := range after {
				if after[name] != unbalanced[name] {
					settled++
				}
			}
			if d := apart(after, well); d > 1 {
				t.Errorf("seed %d: with %v well the owners are %v", seed, well, after)
			}
			if most := leastMoves(unbalanced, well); settled > most {
				t.Errorf("seed %d: %d addresses moved for balance where %d had to, from %v to %v", seed, settled, most, unbalanced, after)
			}
		}
	}
}

// leastMoves counts by brute force how many addresses have to move until no node has two more than another.
func leastMoves(owners map[GroupName]NodeName, well []NodeName) int {
	counts := map[NodeName]int{}
	for _, o := range owners {
		counts[o]++
	}
	for moves := 0; ; moves++ {
		low, high := well[0], well[0]
		for _, n := range well {
			if counts[n] < counts[low] {
				low = n
			}
			if counts[n] > counts[high] {
				high = n
			}
		}
		if counts[high]-counts[low] < 2 {
			return moves
		}
		counts[high]--
		counts[low]++
	}
}

// A configuration whose roles do not go together is refused by the ledger.
func TestReaders_RolesThatDoNotGoTogether(t *testing.T) {
	for _, spec := range []GroupSpec{
		{Name: "a", Role: Reader, Policy: Follow, Pool: "a"},
		{Name: "a", Role: Reader},
		{Name: "a", Role: Reader, Pool: "a", Preempt: true},
		{Name: "a", Role: Writer, Policy: AnyHealthy, Pool: "a"},
		{Name: "a", Role: Writer},
	} {
		if (Config{TTL: 300, Groups: []GroupSpec{spec}}).check() == "" {
			t.Errorf("%+v was accepted", spec)
		}
	}
	if why := (Config{TTL: 300, Groups: []GroupSpec{{Name: "a/b", Role: Reader, Pool: "a"}}}).check(); why != "" {
		t.Error(why)
	}
}

// Among candidates for an address counts first what they are, then what they have, then who they are.
func TestReaders_Rank(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(m *Machine, cs []candidate)
		want NodeName
	}{
		{"the name", func(*Machine, []candidate) {}, "n1"},
		{"priority before name", func(_ *Machine, cs []candidate) { cs[1].priority = 5 }, "n2"},
		{"fewest of all before priority", func(m *Machine, cs []candidate) { own(m, "s/1", "s", "n2"); cs[1].priority = 5 }, "n1"},
		{"fewest of the pool before fewest of all", func(m *Machine, _ []candidate) {
			own(m, "r/1", "r", "n1")
			own(m, "s/1", "s", "n2")
			own(m, "s/2", "s", "n2")
		}, "n2"},
		{"what is on its way counts", func(m *Machine, _ []candidate) { own(m, "r/1", "r", ""); m.arb.placing["r/1"] = "n1" }, "n2"},
		{"a move counts where it goes", func(m *Machine, _ []candidate) {
			own(m, "r/1", "r", "n2")
			g := m.view.Groups["r/1"]
			g.Move = &Move{To: "n1"}
			m.view.Groups["r/1"] = g
		}, "n2"},
		{"the address itself does not count", func(m *Machine, _ []candidate) { own(m, "r/0", "r", "n1") }, "n1"},
		{"one that replicates before fewest", func(m *Machine, _ []candidate) {
			own(m, "r/1", "r", "n2")
			m.peers["n1"].report.Health.Replicating = No
		}, "n2"},
		{"one that has not failed before one that replicates", func(m *Machine, cs []candidate) {
			cs[1].cooling = 1
			m.peers["n1"].report.Health.Replicating = No
		}, "n1"},
		{"of two that have failed the one that did so longer ago", func(m *Machine, cs []candidate) {
			cs[0].cooling, cs[1].cooling = 2, 1
		}, "n2"},
		{"a replica before all that", func(m *Machine, cs []candidate) {
			cs[1].cooling = 1
			m.peers["n1"].report.Health.Source = ""
		}, "n2"},
		{"whom an operator wants before all", func(m *Machine, cs []candidate) {
			cs[1].wanted = true
			m.peers["n2"].report.Health.Source = ""
		}, "n2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(Options{Self: "n1"})
			m.view.Groups = map[GroupName]GroupState{}
			cs := []candidate{{node: "n1"}, {node: "n2"}}
			for _, c := range cs {
				m.peers[c.node] = &peer{report: Report{Health: readerHealth(Yes)}}
			}
			tt.set(m, cs)
			m.rankReaders("r/0", GroupState{Spec: GroupSpec{Name: "r/0", Pool: "r"}}, cs)
			if cs[0].node != tt.want {
				t.Errorf("%s is the first", cs[0].node)
			}
		})
	}
}

func own(m *Machine, name, pool GroupName, owner NodeName) {
	m.view.Groups[name] = GroupState{Spec: GroupSpec{Name: name, Pool: pool}, Owner: owner}
}
