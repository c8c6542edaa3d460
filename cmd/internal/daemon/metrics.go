package daemon

import (
	"context"
	"time"

	"github.com/remora-ha/remora/cmd/internal/metrics"
)

// makeMetrics makes the metrics if the configuration says where to offer them; without it nothing is counted.
func (d *daemon) makeMetrics() {
	if !d.cfg.MetricsFor(d.opt.Self.Name).IsValid() {
		return
	}
	d.metrics = metrics.New(d.opt.Self.Name, time.Now(), func(ctx context.Context) (metrics.Snapshot, error) {
		s, err := backend{d}.Status(ctx)
		return metrics.Snapshot{Status: s, Raft: d.node.Status()}, err
	})
	d.recorder.OnPhase(d.metrics.Phase)
}
