package detector

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func TestDemoteEndsOpenTransactionsAndLeavesReplicationAndOurselvesAlone(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		tx, err := primary.client().Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO d.t VALUES (10)"); err != nil {
			t.Fatal(err)
		}
		a := primary.actor()
		d := a.Demote(t.Context(), core.DemoteServer{Group: "g", Epoch: 2})
		if d.Err != "" || d.Group != "g" || d.Epoch != 2 || d.Executed != primary.executed() {
			t.Fatalf("demoted: %+v", d)
		}
		if !primary.readOnly() {
			t.Error("the demoted server is writable")
		}
		if err := tx.Commit(); err == nil {
			t.Error("an open transaction was committed after the demotion")
		}
		// Replication went through unharmed: what is written now still arrives.
		if p := a.Promote(t.Context(), core.PromoteServer{NotAfter: soon(5 * time.Second)}); p.Err != "" {
			t.Fatal(p.Err)
		}
		primary.exec("INSERT INTO d.t VALUES (11)")
		replica.hasRow(11)
		if n := replica.value("SELECT COUNT(*) FROM d.t WHERE i = 10"); n != "0" {
			t.Error("the transaction that was killed has arrived")
		}
	})
}

func TestDemoteGivesTransactionsTheirTime(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		c := s.client()
		mustExec(t, c, "BEGIN")
		mustExec(t, c, "INSERT INTO d.t VALUES (10)")
		done := make(chan core.ServerDemoted, 1)
		a := s.actor()
		go func() { done <- a.Demote(context.Background(), core.DemoteServer{Drain: time.Minute}) }()
		until(t, 10*time.Second, "the server is read-only", s.readOnly)
		select {
		case d := <-done:
			t.Fatalf("Demote did not wait for the transaction: %+v", d)
		default:
		}
		mustExec(t, c, "ROLLBACK")
		select {
		case d := <-done:
			if d.Err != "" {
				t.Fatal(d.Err)
			}
		case <-time.After(20 * time.Second): // a third of what it may take
			t.Fatal("Demote does not notice that the last transaction has ended")
		}
		mustExec(t, c, "SELECT 1") // still connected: it was not killed
	})
}

func TestDemoteGetsThroughLocks(t *testing.T) {
	for _, lock := range []string{"LOCK TABLES d.t WRITE", "FLUSH TABLES WITH READ LOCK"} {
		t.Run(strings.Fields(lock)[0], func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				s := newDBServer(t, k, 1)
				mustExec(t, s.client(), lock)
				if d := s.actor().Demote(t.Context(), core.DemoteServer{}); d.Err != "" || !s.readOnly() {
					t.Errorf("demoted: %+v", d)
				}
			})
		})
	}
}

func TestDemoteEndsAPromotionUnderWay(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		lock := replica.client() // keeps the applier from what was received
		mustExec(t, lock, "LOCK TABLES d.t READ")
		primary.exec("INSERT INTO d.t VALUES (2)")
		a := replica.actor()
		until(t, 10*time.Second, "the row is received", func() bool {
			r := replica.status(a)
			return r != "" && !strings.HasSuffix(replica.executed(), r[strings.LastIndexAny(r, "-:")+1:])
		})
		done := make(chan core.ServerPromoted, 1)
		go func() {
			done <- a.Promote(context.Background(), core.PromoteServer{ApplyWithin: time.Minute, NotAfter: soon(time.Minute)})
		}()
		until(t, 10*time.Second, "the promotion is under way", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.promotion != nil
		})
		if d := a.Demote(t.Context(), core.DemoteServer{}); d.Err != "" || !replica.readOnly() {
			t.Errorf("demoted: %+v", d)
		}
		if p := <-done; p.Err == "" {
			t.Errorf("promoted: %+v", p)
		}
	})
}

func TestLongTransactionsAreListed(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		c, a := s.client(), s.actor()
		mustExec(t, c, "BEGIN")
		mustExec(t, c, "INSERT INTO d.t VALUES (10)")
		until(t, 10*time.Second, "the transaction is older than what is asked for", func() bool {
			long, err := a.Transactions(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			return len(long) == 1 && strings.Contains(long[0], " has had one for ")
		})
		if long, err := a.Transactions(t.Context(), time.Hour); err != nil || len(long) > 0 {
			t.Errorf("transactions of an hour: %v, %v", long, err)
		}
		mustExec(t, c, "ROLLBACK")
		until(t, 10*time.Second, "it is not listed after its end", func() bool {
			pause(t.Context(), trxPoll)
			long, err := a.Transactions(t.Context(), 0)
			return err == nil && len(long) == 0
		})
	})
}
