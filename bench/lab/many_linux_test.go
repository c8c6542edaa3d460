package lab

import (
	"strings"
	"testing"
	"time"
)

// Of many addresses that move, the roll call notes when the last is answered by the new node, which it hears of by the
// announcement alone, and clients that keep their connections go on there. A server with ballast has touched its memory.
func TestManyAddressesMoveAndKeptConnectionsGoOn(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}, Server: MariaDB{}, Crowd: 3})
	ctx := testContext(t)
	if err := l.StartServers(ctx); err != nil {
		t.Fatal(err)
	}
	db1, db2 := l.Node("db1"), l.Node("db2")
	all := func(n *Node, what string) {
		for _, p := range l.Served() {
			ip(t, n.Host, "address "+what+" "+p.String()+" dev "+Interface)
		}
	}
	all(db1, "add")
	regulars, err := l.StartRegulars(5, 10*time.Millisecond, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer regulars.Stop()
	if err := regulars.WaitAnswered(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	roll, err := l.StartRollCall(ctx, "db1")
	if err != nil {
		t.Fatal(err)
	}
	defer roll.Stop()
	const mib = 64
	if err := db1.Ballast(ctx, mib); err != nil {
		t.Error(err)
	}
	if err := db2.Ballast(ctx, mib); err != nil {
		t.Errorf("the table was replicated, or: %v", err)
	}

	if n, _, err := roll.Answered(); n != 0 || err != nil {
		t.Errorf("%d addresses count as moved before they were: %v", n, err)
	}
	before := time.Now()
	all(db1, "del")
	all(db2, "add")
	for _, p := range l.Served() {
		args := strings.Fields("-q -c 1 -w 1 -U -I " + Interface + " " + p.Addr().String())
		if _, err := db2.NS.Command(ctx, "arping", args...); err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-roll.All():
	case <-ctx.Done():
		n, _, err := roll.Answered()
		t.Fatalf("%d of %d addresses have answered: %v", n, len(l.Served()), err)
	}
	if n, last, err := roll.Answered(); n != 4 || err != nil || !last.After(before) {
		t.Errorf("%d addresses answered, the last %v after the move: %v", n, last.Sub(before), err)
	}
	if err := regulars.WaitAnswered(ctx, time.Now()); err != nil {
		t.Errorf("clients that keep their connections do not go on: %v", err)
	}
	if gap := regulars.Gap(before, time.Now()); gap <= 0 {
		t.Errorf("the longest gap over a move is %v", gap)
	}
}
