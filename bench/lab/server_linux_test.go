package lab

import (
	"context"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"
)

// one runs a query that has one row, as root.
func one(ctx context.Context, n *Node, query string) (map[string]string, error) {
	db, err := n.Admin()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return queryRow(ctx, db, query)
}

// TestRing raises real servers and uses every way to hurt one.
func TestRing(t *testing.T) {
	l := newLab(t, Options{Server: MariaDB{}})
	ctx := testContext(t)
	if err := l.StartServers(ctx); err != nil {
		t.Fatal(err)
	}
	db1, db2 := l.Node("db1"), l.Node("db2")

	// The ring carries a row all the way round, and no further.
	if err := db1.execAll(ctx, []string{"CREATE TABLE lab.t (id INT PRIMARY KEY AUTO_INCREMENT, who INT)", "INSERT INTO lab.t (who) VALUES (@@server_id)"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Servers() {
		eventually(t, "the row on "+n.Name, func() bool {
			row, err := one(ctx, n, "SELECT COUNT(*) AS n FROM lab.t WHERE who = 1")
			return err == nil && row["n"] == "1"
		})
	}
	if err := l.WaitReplicating(ctx); err != nil {
		t.Fatal(err)
	}

	// The two accounts from outside: one may look at replication, the other may write, both over TCP.
	db, err := l.client.DB(netip.AddrPortFrom(db2.Addr, ServerPort), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "INSERT INTO t (who) VALUES (@@server_id)"); err != nil {
		t.Error(err)
	}
	out, err := db2.NS.Command(ctx, "mariadb", "-h127.0.0.1", "-u"+MonitorUser, "-p"+MonitorPassword, "-e", "SHOW SLAVE STATUS; SHOW MASTER STATUS")
	if err != nil || len(out) == 0 {
		t.Errorf("the monitoring account: %v", err)
	}

	// Both client streams tell who answers.
	ip(t, db1.Host, "address add "+l.VIP().String()+"/32 dev eth0")
	s, err := l.StartStream(StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := l.StartQueries(10*time.Millisecond, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitAnswered(ctx, 20); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	eventually(t, "answers to queries", func() bool { return slices.Equal(q.Stats(from, time.Time{}).Servers, []string{"db1"}) })
	eventually(t, "greetings", func() bool { return slices.Equal(s.Stats(from, time.Time{}).Servers, []string{"db1"}) })

	// A frozen server neither greets nor refuses; a killed one refuses; a started one serves again.
	if err := db1.SignalServer(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	from = time.Now()
	eventually(t, "silence", func() bool { st := s.Stats(from, time.Time{}); return st.Pending > 50 && st.Gap > 100*time.Millisecond })
	if err := db1.SignalServer(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitAnswered(ctx, 20); err != nil {
		t.Fatal(err)
	}
	from = time.Now()
	if err := db1.KillServer(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refusals", func() bool { return s.Stats(from, time.Time{}).Failures[Refused] > 10 })
	if err := db1.StartServer(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitReplicating(ctx); err != nil {
		t.Error(err)
	}
	if err := db1.StopServer(); err != nil {
		t.Error(err)
	}
}
