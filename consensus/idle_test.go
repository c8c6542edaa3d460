package consensus

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
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

// ringing is an alarm that counts how often it rings.
type ringing struct {
	*time.Timer
	c chan struct{}
}

func (r ringing) C() <-chan struct{}    { return r.c }
func (r ringing) Reset(d time.Duration) { r.Timer.Reset(d) }
func (r ringing) Stop()                 { r.Timer.Stop() }

func countRings(rings *atomic.Int64) alarm.Maker {
	return func() (alarm.Alarm, error) {
		c := make(chan struct{}, 1)
		return ringing{c: c, Timer: time.AfterFunc(time.Hour, func() {
			rings.Add(1)
			select {
			case c <- struct{}{}:
			default:
			}
		})}, nil
	}
}

// A follower that hears of its leader does not wake up to look whether it has, and Raft's own timer for that is long. Both
// come to life when the leader falls silent.
func TestFollowerSleepsWhileTheLeaderSpeaks(t *testing.T) {
	c := newCluster(t, "db1", "db2", "db3")
	rings := map[*member]*atomic.Int64{}
	for _, m := range c.nodes {
		rings[m] = new(atomic.Int64)
		m.alarms = countRings(rings[m])
	}
	c.startAll()
	l := c.leader()
	eventually(t, "a second in which no follower's alarm rings", func() bool {
		before := map[*member]int64{}
		for _, m := range c.others(l) {
			before[m] = rings[m].Load()
		}
		time.Sleep(time.Second) // what is measured
		l = c.leader()
		for _, m := range c.others(l) {
			if b, ok := before[m]; !ok || rings[m].Load() != b {
				return false
			}
			if hb := m.raft.Load().ReloadableConfig().HeartbeatTimeout; hb < 8*c.timing.RaftHeartbeat {
				t.Errorf("Raft's timer on %s is %v, want at least %v", m.name, hb, 8*c.timing.RaftHeartbeat)
			}
		}
		return true
	})
	rest := c.others(l)
	l.shutdown()
	c.leader(rest...)
}
