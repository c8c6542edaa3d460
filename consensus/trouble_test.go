package consensus

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// A term that can not be written is tried until it is, and no vote is cast meanwhile. The end of the node ends the tries.
func TestTermsAreTriedUntilTheyAreWritten(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	f := inject(s)
	must(t, s.SetUint64([]byte(keyVoteTerm), 1))
	f.fail(errDisk)
	if err := s.Set([]byte(keyVoteCand), []byte("a")); !errors.Is(err, errDisk) {
		t.Errorf("the vote: %v, want %v", err, errDisk)
	}
	done := make(chan error, 1)
	go func() { done <- s.SetUint64([]byte(keyTerm), 7) }()
	eventually(t, "the term is reported", func() bool {
		a := s.log.ails()
		return a != nil && strings.Contains(a.String(), errDisk.Error())
	})
	eventually(t, "the node answers in the term that it moves to", func() bool { return s.Term() == 7 })
	select {
	case err := <-done:
		t.Fatalf("the term is said to be written: %v", err)
	default:
	}
	f.fail(nil)
	must(t, <-done)
	f.fail(errDisk)
	ended := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		_ = s.SetUint64([]byte(keyTerm), 8)
		returned = true
	}()
	runtime.Gosched()
	s.log.interrupt()
	if <-ended {
		t.Error("the library was told that the term is written")
	}
}

// A write that ends says nothing of one that hangs behind it.
func TestEachWriteThatHangsCounts(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := s.log
	d.patient = time.Millisecond
	hang := func(op operation) (end func()) {
		gate, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- d.write(op, func(backend) error { <-gate; return nil }) }()
		return func() { close(gate); must(t, <-done) }
	}
	hung := func(n int) func() bool {
		return func() bool {
			d.hangMu.Lock()
			defer d.hangMu.Unlock()
			return len(d.hanging) == n
		}
	}
	shortened := hang(opShorten)
	eventually(t, "the first is seen", hung(1))
	appended := hang(opAppend)
	eventually(t, "the second is seen", hung(2))
	shortened()
	if a := d.ails(); a == nil || a.op != opAppend {
		t.Errorf("while an append hangs %v is reported", a)
	}
	appended()
	if a := d.ails(); a != nil {
		t.Errorf("when both have ended %v is reported", a)
	}
}

// A leader whose disk fails, or stands still, lets another lead, and leads again once its disk works if it must.
func TestLeaderWithoutADiskYields(t *testing.T) {
	for _, stalls := range []bool{false, true} {
		t.Run(fmt.Sprintf("stalls=%v", stalls), func(t *testing.T) {
			c := newCluster(t, "db1", "db2", "mgr")
			c.startAll()
			c.have(c.commit(), c.nodes...)
			old := c.leader()
			f := inject(old.store)
			heal := func() { f.fail(nil) }
			if stalls {
				heal = f.stall()
			} else {
				f.fail(errDisk)
			}
			defer heal()
			old.Propose(core.Command{ID: lastID.Add(1)}, nil)
			rest := c.others(old)
			eventually(t, "another node leads", func() bool {
				return rest[0].Status().State == "leader" || rest[1].Status().State == "leader"
			})
			c.have(c.commit(rest...), rest...)
			if s := old.Status(); s.Disk == "" {
				t.Errorf("the status of the old leader says nothing of its disk: %+v", s)
			}
			if stalls {
				sendsNoSign(t, old, rest[0])
			}
			heal()
			id := c.commit(rest...)
			c.have(id, c.nodes...)
			eventually(t, "the disk is said to work", func() bool { return old.Status().Disk == "" })
			for _, o := range rest {
				o.shutdown()
			}
			rest[0].start()
			c.have(c.commit(old, rest[0]), old, rest[0])
		})
	}
}

// sendsNoSign checks that nothing of a leader's goes out that would be taken for its heartbeat.
func sendsNoSign(t *testing.T, from, to *member) {
	t.Helper()
	to.forget()
	from.Send(to.name, core.Ack{Term: 1})
	from.Send(to.name, core.Confirm{Term: 1})
	eventually(t, "what was sent later arrives", func() bool {
		from.Send(to.name, core.Report{Incarnation: 1})
		return slices.ContainsFunc(to.received(), func(r core.Received) bool { _, ok := r.Msg.(core.Report); return ok && r.From == from.name })
	})
	for _, r := range to.received() {
		if _, leads := officeOf(r.Msg); leads && r.From == from.name {
			t.Errorf("a leader whose disk stands still has sent %+v", r.Msg)
		}
	}
}

// A node whose disk stands still can be shut down once it moves again, and one whose disk fails at once.
func TestShutdownWithAFailingDisk(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	o := c.others(l)[0]
	f := inject(o.store)
	f.fail(errDisk)
	l.shutdown() // and the next leader's term can not be written
	eventually(t, "the failure is seen", func() bool { return o.Status().Disk != "" })
	ended := make(chan struct{})
	go func() { o.shutdown(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the node does not end")
	}
}

// Asked for a proof of its disk, a leader whose disk stands still has none, and lets another lead, without an entry that
// could not be committed. A disk that refuses has answered.
func TestALeaderProvesItsDisk(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	old := c.leader()
	must(t, old.ProveDisk(t.Context()))
	f := inject(old.store)
	f.fail(errDisk)
	must(t, old.ProveDisk(t.Context()))
	f.fail(nil)
	heal := f.stall()
	defer heal()
	for range 2 {
		if err := old.ProveDisk(t.Context()); !errors.Is(err, ErrDiskStandsStill) {
			t.Errorf("of a disk that stands still the leader says %v", err)
		}
	}
	rest := c.others(old)
	eventually(t, "another node leads", func() bool {
		return rest[0].Status().State == "leader" || rest[1].Status().State == "leader"
	})
	for _, n := range rest {
		must(t, n.ProveDisk(t.Context()))
	}
	heal()
	eventually(t, "the disk works again", func() bool { return old.ProveDisk(t.Context()) == nil })
}
