package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/trace"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/netio"
)

// traceWithin bounds the wait for the pieces of other nodes, one of which is perhaps dead: that is why somebody asks.
const traceWithin = 2 * time.Second

// Trace returns the pieces of this node, and those of all others unless another node asks.
func (b backend) Trace(ctx context.Context, req control.TraceRequest) (control.TraceResult, error) {
	all := control.TraceResult{Pieces: b.d.recorder.Pieces(b.d.opt.Self.Name), Silent: map[string]string{}}
	if req.Forwarded {
		return all, nil
	}
	ctx, cancel := context.WithTimeout(ctx, traceWithin)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, n := range b.d.node.View().Config.Nodes {
		if n.Name == b.d.opt.Self.Name {
			continue
		}
		asked.Go(func() {
			r, err := b.peer(n.Name).Trace(ctx, control.TraceRequest{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				all.Silent[string(n.Name)] = err.Error()
				return
			}
			all.Pieces = append(all.Pieces, r.Pieces...)
		})
	}
	asked.Wait()
	return all, nil
}

// traced notes when the first announcement of an epoch was sent.
type traced struct {
	agent.Announcer
	recorder *trace.Recorder
}

func (t traced) Announce(ctx context.Context, a core.Announce) error {
	err := t.Announcer.Announce(ctx, a)
	if err == nil && a.Round == 1 {
		t.recorder.Mark(a.Group, a.Epoch, trace.Announced, netio.Boottime())
	}
	return err
}

// bound notes when the addresses of an epoch were bound, before the fence opens for them.
func (d *daemon) bound(group core.GroupName, epoch core.Epoch) {
	d.recorder.Mark(group, epoch, trace.Bound, netio.Boottime())
}
