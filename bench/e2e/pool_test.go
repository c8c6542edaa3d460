package e2e

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// ended is when a client noticed that its connection was gone, and how.
type ended struct {
	what string
	at   time.Time
	err  error
}

// Clients keep connections open through a planned switchover, idle ones and ones that wait for an answer. Each is reset
// when the new owner has announced itself, and not before; none waits for an answer that will not come.
func TestPooledConnectionsAreResetAtAMove(t *testing.T) {
	pooled(t, func(l *lab.Lab, owner string) error { return l.Switchover(within(t), others(l, owner)[0].Name) })
}

// So it is if the owner's machine is gone, which tells its clients nothing: the next owner knows them.
func TestPooledConnectionsAreResetWhenTheOwnersMachineIsGone(t *testing.T) {
	pooled(t, func(l *lab.Lab, owner string) error {
		if err := l.Drop(owner, lab.Both); err != nil {
			return err
		}
		_, err := l.WaitMoved(within(t), owner)
		return err
	})
}

// pooled opens connections, has the address moved and looks at how they end.
func pooled(t *testing.T, move func(l *lab.Lab, owner string) error) {
	const each = 25
	l := up(t, nil)
	at := netip.AddrPortFrom(l.VIP(), lab.ServerPort)
	ends := make(chan ended, 2*each)
	var idle []net.Conn
	must(t, l.Client().NS.Do(func() error {
		for range each {
			c, err := net.DialTimeout("tcp", at.String(), 10*time.Second)
			if err != nil {
				return err
			}
			idle = append(idle, c)
		}
		return nil
	}))
	for _, c := range idle {
		go func() {
			_, err := io.Copy(io.Discard, c) // past the greeting
			ends <- ended{"an idle connection", time.Now(), err}
			_ = c.Close()
		}()
	}
	waiting := queries(t, l, at, each, ends)
	defer waiting()
	owner := l.Holder(l.VIP())
	eventually(t, "all nodes know of all clients", func() bool {
		for _, n := range l.Nodes() {
			st, err := n.Status(within(t))
			if err != nil || len(st.Groups) != 1 || st.Groups[0].Clients == nil || *st.Groups[0].Clients < 2*each {
				return false
			}
		}
		return true
	})
	before := time.Now()
	must(t, move(l, owner))
	first := firstAnnouncement(t, l, l.Holder(l.VIP()), before)
	var last time.Duration
	for range 2 * each {
		select {
		case e := <-ends:
			last = max(last, e.at.Sub(first))
			if e.err == nil || e.what == "an idle connection" && !errors.Is(e.err, syscall.ECONNRESET) {
				t.Errorf("%s ended with %v, want a reset", e.what, e.err)
			}
			if e.at.Before(first) {
				t.Errorf("%s was reset %v before the announcement", e.what, first.Sub(e.at))
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a connection to the old owner is still open")
		}
	}
	const busy = time.Second // what busy cores may add; on calm ones it is ten milliseconds
	if last > busy {
		t.Errorf("the last connection was reset only %v after the announcement", last)
	}
	t.Logf("the last of %d connections was reset %v after the first announcement", 2*each, last)
}

// queries starts n connections that wait for an answer that takes long, and returns when the server works on all of them.
func queries(t *testing.T, l *lab.Lab, at netip.AddrPort, n int, ends chan<- ended) (stop func()) {
	t.Helper()
	const long = time.Minute
	db, err := l.Client().DB(at, long)
	must(t, err)
	db.SetMaxOpenConns(n)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			_, err := db.ExecContext(ctx, "SELECT SLEEP(50)")
			ends <- ended{"a connection with a query", time.Now(), err}
		})
	}
	admin, err := l.Node(l.Holder(l.VIP())).Admin()
	must(t, err)
	defer admin.Close()
	eventually(t, "the server works on all queries", func() bool { return sleeping(t, admin) == n })
	return func() {
		cancel()
		wg.Wait()
		must(t, db.Close())
	}
}

func sleeping(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	must(t, db.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'").Scan(&n))
	return n
}

// firstAnnouncement waits until a node has announced the VIP after a moment, and returns when it did so first.
func firstAnnouncement(t *testing.T, l *lab.Lab, node string, after time.Time) (first time.Time) {
	t.Helper()
	eventually(t, node+" announces the address", func() bool {
		frames, err := l.ARPFrames()
		must(t, err)
		i := slices.IndexFunc(frames, func(f lab.ARPFrame) bool {
			return f.Node == node && f.Gratuitous() && f.SenderIP == l.VIP() && f.Time.After(after)
		})
		if i >= 0 {
			first = frames[i].Time
		}
		return i >= 0
	})
	return first
}
