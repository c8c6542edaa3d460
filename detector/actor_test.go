package detector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

func soon(d time.Duration) core.Instant { return bootClock().Add(d) }

func TestAReplicaFollowsIsFrozenAndPromoted(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		if !replica.readOnly() {
			t.Error("a server that follows is not read-only")
		}
		a := replica.actor()
		f := a.Freeze(t.Context(), core.FreezeServer{Group: "g", Epoch: 3, Round: 4})
		if f.Err != "" || f.Group != "g" || f.Epoch != 3 || f.Round != 4 || f.Executed != primary.executed() {
			t.Fatalf("frozen: %+v, want executed %s", f, primary.executed())
		}
		received, err := gtid.Parse(k.flavour, f.Received)
		if err != nil || received.Empty() {
			t.Errorf("received is %q: %v", f.Received, err)
		}
		primary.exec("INSERT INTO d.t VALUES (2)")
		if g := a.Freeze(t.Context(), core.FreezeServer{}); g.Received != f.Received || g.Err != "" {
			t.Errorf("a frozen server has received more: %+v", g)
		}
		p := a.Promote(t.Context(), core.PromoteServer{Group: "g", Epoch: 4, ApplyWithin: 5 * time.Second, NotAfter: soon(5 * time.Second)})
		if p.Err != "" || p.Late || p.Executed != f.Executed {
			t.Fatalf("promoted: %+v", p)
		}
		if !replica.writable() {
			t.Error("the promoted server is read-only")
		}
		again := a.Promote(t.Context(), core.PromoteServer{ApplyWithin: time.Second, NotAfter: soon(5 * time.Second)})
		if again.Err != "" {
			t.Errorf("a second Promote: %+v", again)
		}
	})
}

func TestWhatWasReceivedIsAppliedBeforePromotion(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		word := "REPLICA"
		if k.flavour == gtid.MariaDB {
			word = "SLAVE"
		}
		replica.exec("STOP " + word + " SQL_THREAD")
		primary.exec("INSERT INTO d.t VALUES (2), (3)")
		want := primary.executed()
		a := replica.actor()
		until(t, 10*time.Second, "the row is received", func() bool {
			f := replica.status(a)
			return strings.Contains(f, want) || k.flavour == gtid.MySQL && f != "" && strings.HasSuffix(f, want[strings.LastIndexAny(want, "-:")+1:])
		})
		p := a.Promote(t.Context(), core.PromoteServer{ApplyWithin: 5 * time.Second, NotAfter: soon(5 * time.Second)})
		if p.Err != "" || p.Executed != want {
			t.Fatalf("promoted: %+v, want executed %s", p, want)
		}
		if replica.value("SELECT COUNT(*) FROM d.t") != "3" {
			t.Error("rows are missing")
		}
	})
}

// status is what the server has received.
func (s *dbServer) status(a *Actor) (received string) {
	s.t.Helper()
	err := a.with(s.t.Context(), a.work, func(l *line) error {
		channels, err := l.channels(s.t.Context())
		if err == nil && len(channels) == 1 {
			received = strings.ReplaceAll(channels[0].received, "\n", "")
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return received
}

// MariaDB throws its relay log away when replication starts with both threads stopped. What it held is then reported and
// not lost.
func TestWhatCanNotBeAppliedAnyMoreIsNotLostInSilence(t *testing.T) {
	primary, replica := pair(t, kinds[0])
	replica.exec("STOP SLAVE SQL_THREAD")
	primary.exec("INSERT INTO d.t VALUES (2)")
	a := replica.actor()
	until(t, 10*time.Second, "the row is received", func() bool { return replica.status(a) == primary.executed() })
	replica.exec("STOP SLAVE IO_THREAD")
	p := a.Promote(t.Context(), core.PromoteServer{ApplyWithin: 5 * time.Second, NotAfter: soon(5 * time.Second)})
	if !strings.Contains(p.Err, "relay log") || replica.writable() {
		t.Errorf("promoted: %+v", p)
	}
}

func TestALatePromotionLeavesTheServerReadOnly(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		a := s.actor()
		if d := a.Demote(t.Context(), core.DemoteServer{}); d.Err != "" {
			t.Fatal(d.Err)
		}
		if p := a.Promote(t.Context(), core.PromoteServer{NotAfter: soon(-time.Millisecond)}); !p.Late || p.Err == "" || s.writable() {
			t.Errorf("after the time: %+v", p)
		}
		// The statement is under way while the server stands still, and our own look at the clock came before.
		err := a.with(t.Context(), a.work, func(l *line) error {
			notAfter := soon(300 * time.Millisecond)
			r, err := l.one(t.Context(), askClock)
			if err != nil {
				return err
			}
			clock, err := time.Parse(clockFormat, r["clock"])
			if err != nil {
				return err
			}
			s.stop()
			done := make(chan error, 1)
			go func() { done <- l.exec(t.Context(), l.dialect.setWritable(clock.Add(notAfter.Sub(bootClock())))) }()
			until(t, 5*time.Second, "the time is over", func() bool { return !bootClock().Before(notAfter) })
			s.signal(syscall.SIGCONT)
			return <-done
		})
		if err != nil {
			t.Fatal(err)
		}
		if !s.readOnly() {
			t.Error("a statement that came late made the server writable")
		}
	})
}

func TestAServerThatHangsIsNotPromotedAndNotReportedAsDemoted(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		a := s.actor()
		if d := a.Demote(t.Context(), core.DemoteServer{}); d.Err != "" {
			t.Fatal(d.Err)
		}
		s.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		p := a.Promote(ctx, core.PromoteServer{NotAfter: soon(100 * time.Millisecond)})
		d := a.Demote(ctx, core.DemoteServer{})
		s.signal(syscall.SIGCONT)
		if p.Err == "" || d.Err == "" {
			t.Errorf("promoted %+v, demoted %+v", p, d)
		}
		if !s.readOnly() {
			t.Error("the server became writable")
		}
	})
}

func TestActsStayOutOfTheBinaryLog(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		s.exec("INSERT INTO d.t VALUES (1)")
		position := "SHOW BINARY LOG STATUS"
		if k.flavour == gtid.MariaDB {
			position = "SHOW MASTER STATUS"
		}
		read := func() string {
			db := s.db("root", "") // the account of the acts has no right to see it
			defer db.Close()
			rows, err := db.QueryContext(t.Context(), position)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			columns, err := rows.Columns()
			if err != nil || !rows.Next() {
				t.Fatalf("%s: no row, %v", position, errors.Join(err, rows.Err()))
			}
			values := make([]sql.NullString, len(columns))
			into := make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			return values[0].String + ":" + values[1].String // file and position, on all servers
		}
		before, a := read(), s.actor()
		a.Freeze(t.Context(), core.FreezeServer{})
		a.Demote(t.Context(), core.DemoteServer{})
		a.Promote(t.Context(), core.PromoteServer{NotAfter: soon(5 * time.Second)})
		// Nobody answers at the source, which is enough to go through all statements.
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		a.Follow(ctx, core.FollowServer{Source: s.address(), SourceExecuted: s.executed()})
		if after := read(); after != before || before == ":" {
			t.Errorf("the binary log went from %s to %s", before, after)
		}
	})
}

func TestEachFailureNamesItsCause(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1, "--max-connections=12")
		check := func(what, says string, a *Actor) {
			t.Helper()
			d := a.Demote(t.Context(), core.DemoteServer{})
			if !strings.Contains(d.Err, says) || strings.Contains(d.Err, testPassword) || strings.Contains(d.Err, "wrong-secret") {
				t.Errorf("%s: %q, want %q", what, d.Err, says)
			}
		}
		check("wrong password", "wrong user or password", s.actor(func(c *ActorConfig) {
			c.Password = func() (string, error) { return "wrong-secret", nil }
		}))
		check("no account", "wrong user or password", s.actor(func(c *ActorConfig) { c.User = "nobody" }))
		check("no privilege", "remora mysql grants", s.actor(func(c *ActorConfig) { c.User = replUser }))
		check("nobody listens", "connection refused", s.actor(func(c *ActorConfig) { c.Address = fmt.Sprintf("127.0.0.1:%d", freePort(t)) }))

		// With CONNECTION ADMIN one slot is left when all are taken; an account without it is told.
		taken := 0
		until(t, 10*time.Second, "all connections are taken", func() bool {
			err := s.client().Ping()
			if err == nil {
				taken++
			}
			return err != nil
		})
		if taken < 5 {
			t.Fatalf("only %d connections were taken", taken)
		}
		check("full", "too many connections", s.actor(func(c *ActorConfig) { c.User = replUser }))
		until(t, 10*time.Second, "the reserved slot, which the one before has just left, lets us in", func() bool {
			return s.actor().Demote(t.Context(), core.DemoteServer{}).Err == ""
		})
	})
}

// The server's own functions are the oracle.
func TestGTIDSetsAgreeWithMySQL(t *testing.T) {
	s := newDBServer(t, kind{"MySQL", gtid.MySQL}, 1)
	db := s.db("root", "")
	r := rand.New(rand.NewPCG(5, 6))
	random := func() string {
		var parts []string
		for range r.IntN(6) {
			first := 1 + r.IntN(20)
			parts = append(parts, fmt.Sprintf("%s:%s%d-%d", []string{"3e11fa47-71ca-11e1-9e33-c80aa9429562", "A0000000-0000-0000-0000-00000000000B"}[r.IntN(2)],
				[]string{"", "audit:", "Zz_1:"}[r.IntN(3)], first, first+r.IntN(4)))
		}
		return strings.Join(parts, ",")
	}
	for range 1000 {
		at, bt := random(), random()
		a, err1 := gtid.Parse(gtid.MySQL, at)
		b, err2 := gtid.Parse(gtid.MySQL, bt)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		var subset bool
		var minus, same string
		if err := db.QueryRow("SELECT GTID_SUBSET(?, ?), GTID_SUBTRACT(?, ?), GTID_SUBTRACT(?, '')", at, bt, at, bt, at).Scan(&subset, &minus, &same); err != nil {
			t.Fatal(err)
		}
		if b.Contains(a) != subset || a.Subtract(b).String() != strings.ReplaceAll(minus, "\n", "") || a.String() != strings.ReplaceAll(same, "\n", "") {
			t.Fatalf("%q, %q: contains %v, difference %q, itself %q; the server: %v, %q, %q", at, bt, b.Contains(a), a.Subtract(b), a, subset, minus, same)
		}
	}
}
