package detector

import (
	"context"
	"fmt"
	"strings"
	"sync"
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

// A replica is pointed to another source while it applies what the old one sends on: nothing is applied twice, and nothing is left out.
func TestWhatIsAppliedMeanwhileIsNotAskedForAgain(t *testing.T) {
	k := kinds[0] // MySQL keeps the set itself
	primary, relay := pair(t, k)
	replica := newDBServer(t, k, 3)
	replica.follow(relay)
	ctx, end := context.WithCancel(t.Context())
	rows := make(chan int)
	db := primary.client()
	var writes sync.Mutex // held by whoever writes a row, and by whoever wants none to be written
	go func() {
		n := 2
		for ; ctx.Err() == nil; n++ {
			writes.Lock()
			_, err := db.Exec(fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n))
			writes.Unlock()
			if err != nil {
				t.Errorf("row %d: %v", n, err)
				break
			}
		}
		rows <- n - 1
	}()
	a := replica.actor()
	const ahead = "0-1-1000000" // what the source is known to have is no part of this
	for i := range 10 {
		source := []*dbServer{primary, relay}[i%2]
		f := a.Follow(t.Context(), core.FollowServer{Source: source.address(), SourceExecuted: ahead})
		if f.Errant != "" && source == relay {
			// It is behind on a busy machine, and refuses a replica that has more than itself. A replica that stays with the
			// primary is ahead again at once, so nothing is written until it was asked again.
			writes.Lock()
			var has int
			if _, err := fmt.Sscan(primary.value("SELECT COUNT(*) FROM d.t"), &has); err != nil {
				t.Fatal(err)
			}
			relay.hasRow(has)
			f = a.Follow(t.Context(), core.FollowServer{Source: source.address(), SourceExecuted: ahead})
			writes.Unlock()
		}
		if f.Err != "" || f.Errant != "" {
			t.Errorf("turn %d: %+v", i, f)
			break
		}
	}
	end()
	last := <-rows
	replica.hasRow(last)
	if got := replica.value("SELECT COUNT(*) FROM d.t"); got != fmt.Sprint(last) {
		t.Errorf("the replica has %s rows of %d", got, last)
	}
}
