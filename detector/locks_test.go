package detector

import (
	"context"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func TestMHAsLocksAreSeen(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	if h := w.waitState(core.Healthy); h.MHAWatches != core.No || h.MHAActs != core.No {
		t.Errorf("nobody holds a lock: %+v", h)
	}
	db := m.root()
	defer db.Close()
	for name, seen := range map[string]func(core.Health) (held, other core.Tri){
		mhaMonitorLock:  func(h core.Health) (core.Tri, core.Tri) { return h.MHAWatches, h.MHAActs },
		mhaFailoverLock: func(h core.Health) (core.Tri, core.Tri) { return h.MHAActs, h.MHAWatches },
	} {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ExecContext(t.Context(), "DO GET_LOCK(?, 0)", name); err != nil {
			t.Fatal(err)
		}
		w.wait(5*time.Second, name+" is held", func(h core.Health) bool {
			held, other := seen(h)
			return held == core.Yes && other == core.No
		})
		if _, err := c.ExecContext(context.Background(), "DO RELEASE_LOCK(?)", name); err != nil {
			t.Fatal(err)
		}
		c.Close()
		w.wait(5*time.Second, name+" is free", func(h core.Health) bool { return h.MHAWatches == core.No && h.MHAActs == core.No })
	}
}

// A server that does not tell who holds a lock is healthy, and asked once.
func TestLocksThatAreNotToldAreUnknown(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(noReplica)})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	if h := w.waitState(core.Healthy); h.MHAWatches != core.Unknown || h.MHAActs != core.Unknown || len(h.Alarms) != 0 {
		t.Errorf("%+v", h)
	}
	until(t, 5*time.Second, "some probes", func() bool { return f.asked("SHOW REPLICA STATUS") > 1 })
	if n := f.asked("SELECT " + lockColumns); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
