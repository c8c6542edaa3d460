package detector

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// cutter lets connections through to a server until it has let through as many bytes of the server's as are left; then it
// ends them, as if the server had died, and takes no more.
type cutter struct {
	left   atomic.Int64
	at     netip.AddrPort
	closed sync.Once
	l      net.Listener
}

func newCutter(t *testing.T, to netip.AddrPort) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, at: netip.MustParseAddrPort(l.Addr().String())}
	c.left.Store(1 << 40)
	t.Cleanup(c.end)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.String())
			if err != nil {
				in.Close()
				return
			}
			go func() { io.Copy(out, in); out.Close() }()
			go c.pass(in, out)
		}
	}()
	return c
}

func (c *cutter) end() { c.closed.Do(func() { c.l.Close() }) }

func (c *cutter) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if c.left.Add(-int64(n)) < 0 {
			c.end()
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// A source that dies in the middle of a transaction leaves a part of it with its replica, whose applier would wait a minute
// for the rest when it is stopped. Nobody waits for what will never come: neither a promotion nor a replica that is pointed
// to another source.
func TestNobodyWaitsForTheRestOfATransaction(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, promoted := pair(t, k)
		pointed := newDBServer(t, k, 3)
		primary.exec("CREATE TABLE d.big (i INT PRIMARY KEY, b LONGBLOB)")
		for _, s := range []*dbServer{promoted, pointed} {
			c := newCutter(t, primary.address())
			if f := s.actor().Follow(t.Context(), core.FollowServer{Source: c.at, SourceExecuted: primary.executed()}); f.Err != "" || f.Errant != "" {
				t.Fatalf("follow: %+v", f)
			}
			a := s.actor()
			until(t, 20*time.Second, "the replica has caught up", func() bool { return s.executed() == primary.executed() })
			c.left.Store(1 << 20)
			defer a.work.drop()
		}
		before := promoted.executed()
		insert := "INSERT INTO d.big WITH RECURSIVE n (i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 40) SELECT i, REPEAT('x', 100000) FROM n"
		if k.flavour == gtid.MariaDB {
			primary.exec("SET SESSION binlog_format = ROW", insert)
		} else {
			primary.exec(insert)
		}
		for _, s := range []*dbServer{promoted, pointed} {
			a := s.actor()
			until(t, 20*time.Second, "the source is gone", func() bool { return !s.receives(a) })
		}
		primary.kill()
		start := time.Now()
		if p := promoted.actor().Promote(t.Context(), core.PromoteServer{ApplyWithin: 20 * time.Second, NotAfter: soon(time.Minute)}); p.Err != "" || p.Executed != before {
			t.Fatalf("promoted: %+v, want executed %s", p, before)
		}
		t.Logf("promoted after %v", time.Since(start))
		start = time.Now()
		promoted.exec("INSERT INTO d.t VALUES (2)")
		if f := pointed.actor().Follow(t.Context(), core.FollowServer{Source: promoted.address(), SourceExecuted: promoted.executed()}); f.Err != "" || f.Errant != "" {
			t.Fatalf("follow: %+v", f)
		}
		t.Logf("pointed after %v", time.Since(start))
		pointed.hasRow(2)
		if time.Since(start) > 30*time.Second {
			t.Error("the replica has waited for the rest of the transaction")
		}
		for _, s := range []*dbServer{promoted, pointed} {
			if n := s.value("SELECT COUNT(*) FROM d.big"); n != "0" {
				t.Errorf("%s rows of a part of a transaction are there", n)
			}
		}
	})
}

// receives reports whether the server is connected to its source.
func (s *dbServer) receives(a *Actor) (yes bool) {
	s.t.Helper()
	err := a.with(s.t.Context(), a.work, func(l *line) error {
		rows, err := l.query(s.t.Context(), statementWait, l.dialect.askReplica())
		for _, r := range rows {
			yes = yes || r["replica_io_running"] == "Yes"
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return yes
}
