package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Direction says which of a node's frames a fault drops.
type Direction uint8

// The directions of a fault, as the node sees them.
const (
	In Direction = 1 << iota
	Out
	Both = In | Out
)

// String returns "in", "out" or "both ways".
func (d Direction) String() string {
	return map[Direction]string{In: "in", Out: "out", Both: "both ways"}[d]
}

// faults is what the bridge drops.
type faults struct {
	drop  map[string]Direction
	loss  map[string]float64 // per cent of the frames, each way
	pairs map[[2]string]bool // from, to
}

func newFaults() faults {
	return faults{drop: map[string]Direction{}, loss: map[string]float64{}, pairs: map[[2]string]bool{}}
}

// heal forgets the faults that touch node.
func (f faults) heal(node string) {
	delete(f.drop, node)
	delete(f.loss, node)
	maps.DeleteFunc(f.pairs, func(p [2]string, _ bool) bool { return p[0] == node || p[1] == node })
}

// hook is the place in the bridge at which a rule looks at frames.
type hook uint8

const (
	hookEnter hook = iota // from a port, before anything else
	hookForward
	hookLeave // to a port, after everything else
)

// dropRule drops frames that come from port in, go to port out (empty: any), or only per cent of them (0: all).
type dropRule struct {
	at      hook
	in, out string
	percent float64
}

// rules returns the rules that make the faults, always in the same order.
func (f faults) rules(port func(node string) string) []dropRule {
	var rs []dropRule
	for _, n := range slices.Sorted(maps.Keys(f.drop)) {
		if f.drop[n]&Out != 0 {
			rs = append(rs, dropRule{at: hookEnter, in: port(n)})
		}
		if f.drop[n]&In != 0 {
			rs = append(rs, dropRule{at: hookLeave, out: port(n)})
		}
	}
	pairs := slices.SortedFunc(maps.Keys(f.pairs), func(a, b [2]string) int {
		return strings.Compare(a[0]+" "+a[1], b[0]+" "+b[1])
	})
	for _, p := range pairs {
		rs = append(rs, dropRule{at: hookForward, in: port(p[0]), out: port(p[1])})
	}
	for _, n := range slices.Sorted(maps.Keys(f.loss)) {
		rs = append(rs, dropRule{at: hookEnter, in: port(n), percent: f.loss[n]},
			dropRule{at: hookLeave, out: port(n), percent: f.loss[n]})
	}
	return rs
}

// Drop drops all frames of a node in one direction or both. It adds to what is dropped already.
func (l *Lab) Drop(node string, dir Direction) error {
	return l.fault(node, fmt.Sprintf("all packets dropped, %v", dir), func(f faults) { f.drop[node] |= dir })
}

// DropBetween drops what one host sends to another, in this direction only.
func (l *Lab) DropBetween(from, to string) error {
	if _, err := l.host(to); err != nil {
		return err
	}
	return l.fault(from, "packets to "+to+" dropped", func(f faults) { f.pairs[[2]string{from, to}] = true })
}

// Part splits the network: hosts of a and hosts of b no longer hear one another.
func (l *Lab) Part(a, b []string) error {
	for _, n := range slices.Concat(a, b) {
		if _, err := l.host(n); err != nil {
			return err
		}
	}
	what := strings.Join(a, "+") + " parted from " + strings.Join(b, "+")
	return l.fault(a[0], what, func(f faults) {
		for _, x := range a {
			for _, y := range b {
				f.pairs[[2]string{x, y}], f.pairs[[2]string{y, x}] = true, true
			}
		}
	})
}

// Loss drops a random share of a host's frames, in per cent and each way; 0 ends it.
func (l *Lab) Loss(node string, percent float64) error {
	return l.fault(node, fmt.Sprintf("%v %% of packets lost", percent), func(f faults) {
		if f.loss[node] = percent; percent <= 0 {
			delete(f.loss, node)
		}
	})
}

// Heal ends all packet faults of a host.
func (l *Lab) Heal(node string) error {
	return l.fault(node, "packet faults healed", func(f faults) { f.heal(node) })
}

// HealAll ends all packet faults.
func (l *Lab) HealAll() error {
	l.faultMu.Lock()
	defer l.faultMu.Unlock()
	l.faults = newFaults()
	l.note(Event{Source: SourceLab, What: "all packet faults healed"})
	return l.filter.apply(nil)
}

func (l *Lab) fault(node, what string, change func(faults)) error {
	if _, err := l.host(node); err != nil {
		return err
	}
	l.faultMu.Lock()
	defer l.faultMu.Unlock()
	change(l.faults)
	l.note(Event{Source: SourceLab, Node: node, What: what})
	if err := l.filter.apply(l.faults.rules(func(n string) string { return l.hosts[n].port })); err != nil {
		return fmt.Errorf("%s: %s: %w", node, what, err)
	}
	return nil
}
