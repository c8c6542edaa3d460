package core

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestEligible(t *testing.T) {
	spec := func(p Policy) GroupSpec { return GroupSpec{Policy: p, Addresses: prefixes("10.0.0.1/32")} }
	six := GroupSpec{Policy: AnyHealthy, Addresses: prefixes("2001:db8::1/128")}
	listens := func(texts ...string) Health {
		h := Health{State: Healthy, Listens: []netip.Addr{}}
		for _, a := range texts {
			h.Listens = append(h.Listens, netip.MustParseAddr(a))
		}
		return h
	}
	for _, tt := range []struct {
		name      string
		spec      GroupSpec
		h         Health
		newcomer  string // part of why not, empty if eligible
		incumbent string
	}{
		{"healthy", spec(AnyHealthy), Health{State: Healthy}, "", ""},
		{"failed", spec(AnyHealthy), Health{State: Failed, Reason: "connection refused"}, "MySQL: connection refused", "MySQL: connection refused"},
		{"failed, no reason", spec(AnyHealthy), Health{State: Failed}, "MySQL: failed", "MySQL: failed"},
		{"unknown", spec(AnyHealthy), Health{}, "not known yet", "not known yet"},
		{"read-only under any", spec(AnyHealthy), Health{State: Healthy, Writable: No}, "", ""},
		{"writable under follow", spec(Follow), Health{State: Healthy, Writable: Yes}, "", ""},
		{"read-only under follow", spec(Follow), Health{State: Healthy, Writable: No}, "read-only", "read-only"},
		{"not known under follow", spec(Follow), Health{State: Healthy}, "not known whether MySQL is writable", ""},
		{"listens nowhere", spec(AnyHealthy), listens(), "can not be reached at 10.0.0.1", "can not be reached at 10.0.0.1"},
		{"listens on loopback", spec(AnyHealthy), listens("127.0.0.1"), "set bind_address", "set bind_address"},
		{"listens on the address", spec(AnyHealthy), listens("127.0.0.1", "10.0.0.1"), "", ""},
		{"listens on the wildcard", spec(AnyHealthy), listens("0.0.0.0"), "", ""},
		{"listens on the other family's wildcard", spec(AnyHealthy), listens("::"), "can not be reached", "can not be reached"},
		{"IPv6 wildcard", six, listens("::"), "", ""},
		{"IPv4 wildcard for IPv6", six, listens("0.0.0.0"), "can not be reached", "can not be reached"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				incumbent bool
				want      string
			}{{false, tt.newcomer}, {true, tt.incumbent}} {
				ok, why := Eligible(tt.spec, tt.h, c.incumbent)
				if ok != (c.want == "") || ok != (why == "") || !strings.Contains(why, c.want) {
					t.Errorf("incumbent %t: %t, %q, want %q", c.incumbent, ok, why, c.want)
				}
			}
		})
	}
}

// better is the rule of rank in words: what the operator wants, then who has not just failed or did so longer ago, then priority,
// then name.
func better(a, b candidate) bool {
	if a.wanted != b.wanted {
		return a.wanted
	}
	if a.cooling != b.cooling {
		return b.cooling != 0 && (a.cooling == 0 || a.cooling < b.cooling)
	}
	if a.priority != b.priority {
		return a.priority > b.priority
	}
	return a.node < b.node
}

// slowRank takes the best of what is left, again and again.
func slowRank(cs []candidate) (ranked []candidate) {
	for cs = slices.Clone(cs); len(cs) > 0; {
		best := 0
		for i := range cs {
			if better(cs[i], cs[best]) {
				best = i
			}
		}
		ranked = append(ranked, cs[best])
		cs = slices.Delete(cs, best, best+1)
	}
	return ranked
}

func TestRankAgainstADumbTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		cs := make([]candidate, r.IntN(7))
		for i := range cs {
			cs[i] = candidate{node: NodeName(fmt.Sprintf("n%d", i)), wanted: r.IntN(4) == 0, cooling: Instant(max(0, r.IntN(5)-2)), priority: r.IntN(3) - 1}
		}
		r.Shuffle(len(cs), func(i, j int) { cs[i], cs[j] = cs[j], cs[i] })
		want := slowRank(cs)
		if rank(cs); !slices.Equal(cs, want) {
			t.Fatalf("ranked %+v, want %+v", cs, want)
		}
	}
}

// Policy any wants primaries of one another. The table says for each node which member it replicates from, and which of
// them are one-way replicas.
func TestOneWaySource(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources map[NodeName]string // "-" for nobody, "" for unknown
		oneWay  []NodeName
	}{
		{"nobody replicates", map[NodeName]string{"n1": "-", "n2": "-", "n3": "-"}, nil},
		{"ring of three", map[NodeName]string{"n1": "n2", "n2": "n3", "n3": "n1"}, nil},
		{"two primaries", map[NodeName]string{"n1": "n2", "n2": "n1", "n3": "-"}, nil},
		{"a replica of two primaries", map[NodeName]string{"n1": "n2", "n2": "n1", "n3": "n1"}, []NodeName{"n3"}},
		{"a chain", map[NodeName]string{"n1": "-", "n2": "n1", "n3": "n2"}, []NodeName{"n2", "n3"}},
		{"a star", map[NodeName]string{"n1": "-", "n2": "n1", "n3": "n1"}, []NodeName{"n2", "n3"}},
		{"a stranger as source", map[NodeName]string{"n1": "10.9.9.9:3306", "n2": "n1", "n3": "-"}, nil},
		{"not known", map[NodeName]string{"n1": "", "n2": "n1", "n3": "-"}, nil},
		{"the source is dead", map[NodeName]string{"n1": "dead", "n2": "n1", "n3": "-"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSolo(t)
			s.step(healthy)
			for i, n := range []NodeName{"n1", "n2", "n3"} {
				s.step(Received{From: n, Msg: Report{Incarnation: 9, Seq: Seq(i + 100), Health: sourceHealth(tt.sources[n])}})
			}
			var got []NodeName
			for _, n := range []NodeName{"n1", "n2", "n3"} {
				if s.m.oneWaySource(n) != "" {
					got = append(got, n)
				}
			}
			if !slices.Equal(got, tt.oneWay) {
				t.Fatalf("one-way replicas %v, want %v", got, tt.oneWay)
			}
		})
	}
}

// Servers may reach one another by a network of their own.
func TestOneWaySourceInANetworkOfTheServers(t *testing.T) {
	s := newSolo(t)
	cfg := soloConfig()
	cfg.Version = 2
	for i := range cfg.Nodes {
		cfg.Nodes[i].MySQL = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 88, 0, byte(1 + i)}), 3307)
	}
	s.commit(Op{Configure: &cfg})
	s.step(healthy)
	for i, from := range []string{"-", "10.88.0.1:3307", "10.77.0.12:3306"} { // by the one, and by the other
		s.step(Received{From: cfg.Nodes[i].Name, Msg: Report{Incarnation: 9, Seq: Seq(i + 100), Health: sourceHealth(from)}})
	}
	for n, want := range map[NodeName]NodeName{"n1": "", "n2": "n1", "n3": "n2"} {
		if got := s.m.oneWaySource(n); got != want {
			t.Errorf("%s replicates one way from %q, want %q", n, got, want)
		}
	}
}

func sourceHealth(from string) Health {
	hosts := map[string]string{"n1": "10.77.0.11:3306", "n2": "10.77.0.12:3306", "n3": "10.77.0.13:3306"}
	switch from {
	case "-":
		return Health{State: Healthy, Replicating: No}
	case "":
		return Health{State: Healthy}
	case "dead":
		return Health{State: Failed, Source: hosts["n2"]}
	}
	if host, ok := hosts[from]; ok {
		from = host
	}
	return Health{State: Healthy, Source: from, Replicating: Yes}
}
