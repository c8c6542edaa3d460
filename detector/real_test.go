package detector

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func TestKilledServerIsFailedAtOnceAndHealthyAgainAfterRestart(t *testing.T) {
	m := newMariaDB(t)
	for _, address := range []string{m.address(), "unix:" + m.socket()} {
		t.Run(address[:4], func(t *testing.T) {
			w := watch(t, Config{Address: address, Timing: lan(t), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
			var took []time.Duration
			for range 5 {
				w.waitState(core.Healthy)
				time.Sleep(50 * time.Millisecond)
				from := w.count()
				t0 := time.Now()
				m.signal(syscall.SIGKILL)
				h := w.waitState(core.Failed)
				took = append(took, h.at.Sub(t0))
				if !strings.Contains(h.Reason, "is exiting, signal 9") {
					t.Errorf("reason %q does not name the exit", h.Reason)
				}
				m.kill()
				m.start()
				w.waitState(core.Healthy)
				if n := w.count() - from; n > 10 {
					t.Errorf("%d events for one death and one return", n)
				}
			}
			t.Logf("kill -9 to event: %v, p50 %v", took, median(took))
			if median(took) > 200*time.Millisecond {
				t.Errorf("p50 of %v is no event at all", median(took))
			}
		})
	}
}
