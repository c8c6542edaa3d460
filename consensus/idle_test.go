package consensus

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// cpuTime returns the processor time that the process has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestIdleCost measures three nodes in one process that only keep each other informed, with the profile lan and
// reports at its rate. The bound is loose: the machine may be busy, and the race detector on.
func TestIdleCost(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	var err error
	c.timing, err = core.ProfileTiming("lan")
	must(t, err)
	c.startAll()
	c.leader()
	const lasts = 4 * time.Second
	end := time.Now().Add(lasts)
	before := cpuTime(t)
	for seq := core.Seq(1); time.Now().Before(end); seq++ {
		for _, m := range c.nodes {
			for _, o := range c.others(m) {
				m.Send(o.name, core.Report{Incarnation: 1, Seq: seq})
			}
		}
		time.Sleep(c.timing.Heartbeat)
	}
	share := float64(cpuTime(t)-before) / float64(lasts) / float64(len(c.nodes))
	t.Logf("%.2f %% of one core for each node, term %d at the end", 100*share, c.nodes[0].Status().Term)
	if share > 0.1 {
		t.Errorf("an idle node uses %.2f %% of one core", 100*share)
	}
}
