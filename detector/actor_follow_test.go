package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func TestCatchUpWaitsForASet(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		a := replica.actor()
		primary.exec("INSERT INTO d.t VALUES (2)")
		want := primary.executed()
		if c := a.CatchUp(t.Context(), core.CatchUpServer{Executed: want, Within: 10 * time.Second}); c.Err != "" || replica.executed() != want {
			t.Fatalf("caught up: %+v at %s, want %s", c, replica.executed(), want)
		}
		a.Freeze(t.Context(), core.FreezeServer{})
		primary.exec("INSERT INTO d.t VALUES (3)")
		c := a.CatchUp(t.Context(), core.CatchUpServer{Executed: primary.executed(), Within: 50 * time.Millisecond})
		if !strings.Contains(c.Err, "1 transactions are missing") {
			t.Errorf("what never comes: %+v", c)
		}
	})
}

func TestAFormerPrimaryFollowsAndAnErrantOneIsLeftAlone(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		old := primary.actor()
		if d := old.Demote(t.Context(), core.DemoteServer{}); d.Err != "" {
			t.Fatal(d.Err)
		}
		b := replica.actor()
		if c := b.CatchUp(t.Context(), core.CatchUpServer{Executed: primary.executed(), Within: 10 * time.Second}); c.Err != "" {
			t.Fatal(c.Err)
		}
		if p := b.Promote(t.Context(), core.PromoteServer{ApplyWithin: time.Second, NotAfter: soon(5 * time.Second)}); p.Err != "" {
			t.Fatal(p.Err)
		}
		replica.exec("INSERT INTO d.t VALUES (2)")
		primary.follow(replica)
		primary.hasRow(2)

		// Now it gets a transaction of its own.
		old.Freeze(t.Context(), core.FreezeServer{})
		if p := old.Promote(t.Context(), core.PromoteServer{ApplyWithin: time.Second, NotAfter: soon(5 * time.Second)}); p.Err != "" {
			t.Fatal(p.Err)
		}
		primary.exec("INSERT INTO d.t VALUES (99)")
		before := primary.executed()
		f := old.Follow(t.Context(), core.FollowServer{Source: replica.address(), SourceExecuted: replica.executed()})
		if f.Errant == "" || f.Err != "" {
			t.Errorf("follows: %+v", f)
		}
		if primary.status(old) != "" || !primary.writable() || primary.executed() != before {
			t.Error("an errant server was touched")
		}
	})
}

// A former primary whose last rows nobody has received is left alone, also when its successor has written more rows by then
// than it had: MariaDB's positions do not show that.
func TestAForkThatPositionsDoNotShowIsFound(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		old, successor := pair(t, k)
		successor.exec("STOP REPLICA IO_THREAD")
		old.exec("INSERT INTO d.t VALUES (100), (101)")
		if p := successor.actor().Promote(t.Context(), core.PromoteServer{ApplyWithin: 5 * time.Second, NotAfter: soon(time.Minute)}); p.Err != "" {
			t.Fatal(p.Err)
		}
		for i := range 10 {
			successor.exec(fmt.Sprintf("INSERT INTO d.t VALUES (%d)", 200+i))
		}
		f := old.actor().Follow(t.Context(), core.FollowServer{Source: successor.address(), SourceExecuted: successor.executed()})
		if f.Err != "" || f.Errant == "" {
			t.Errorf("a fork: %+v", f)
		}
		if status := old.status(old.actor()); status != "" {
			t.Errorf("a server that is to be left alone was pointed to another: %s", status)
		}
	})
}
