package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/netio"
)

// fenceCheck is how often the fence is read back, beside the news of its loss.
const fenceCheck = 10 * time.Second

// watchAgain is how long a watch over the fence that has ended by itself rests until it begins again.
const watchAgain = time.Second

// makeFence finds out whether this kernel can hold the leases to the millisecond. If not, or if that is not wanted, address
// lifetimes of whole seconds are left: the daemon says what that means, and refuses leases that are too short for them.
func (d *daemon) makeFence() error {
	if d.opt.DryRun || d.opt.Self.Witness {
		return nil
	}
	if d.cfg.Process.KernelLease == config.LeaseLifetime {
		return d.goUnfenced(errors.New("kernel_lease is \"lifetime\" in the configuration"))
	}
	fence, err := netio.NewFence(netio.FenceConfig{Logger: d.log})
	if errors.Is(err, netio.ErrNoFence) {
		return d.goUnfenced(err)
	}
	d.fence = fence
	return err
}

func (d *daemon) goUnfenced(why error) error {
	if problems := d.cfg.Unfenced(); len(problems) > 0 {
		return fmt.Errorf("%w (%w)", problems, why)
	}
	d.unfenced = true
	d.log.Error("the kernel holds leases by address lifetimes of whole seconds alone: if this daemon is killed or frozen while it owns, its addresses may answer for seconds, for which all others wait longer",
		"reason", why, "margin", core.UnfencedMargin(d.cfg.Timing().TTL))
	return nil
}

// clean removes what an earlier process left: addresses first, for they may be open; then the fence is built anew, closed, or
// removed where there is to be none. The new fence takes the place of the old one in one transaction, with all addresses of the
// file, the ports and the frames: at no moment does an address answer that is bound here without our mark.
func (d *daemon) clean() error {
	removed, err := d.binder.RemoveLeftovers(context.Background())
	if err != nil {
		return err
	}
	for _, p := range removed {
		d.log.Warn("removed an address that an earlier process left behind", "address", p)
	}
	if d.fence == nil {
		return d.cleanFence()
	}
	return d.guardAll(toGuard{groups: d.cfg.Core().Groups})
}

// cleanFence removes the fence of an earlier process that had one. It is called when the addresses are gone.
func (d *daemon) cleanFence() error {
	removed, err := d.binder.RemoveFenceLeftovers(context.Background())
	switch {
	case d.opt.Self.Witness && errors.Is(err, netio.ErrPermission):
		return nil // a witness needs no rights, and what is closed there silences nobody
	case err != nil:
		return fmt.Errorf("%w: what an earlier process had closed would stay so; see whether an address is bound that should not be ('ip addr'), remove the tables ('nft delete table inet %[2]s', and the same with arp and netdev), and start the daemon again",
			err, netio.FenceTable)
	}
	for _, t := range removed {
		d.log.Warn("removed a table of the fence that an earlier process left behind", "table", t)
	}
	return nil
}

// guardLater has the fence follow the ledger's groups. It does not wait, since it is called by the agent's loop.
func (d *daemon) guardLater(g toGuard) {
	select {
	case <-d.guard: // only the newest counts
	default:
	}
	d.guard <- g
}

// watchedFence is what keepFence needs of a netio.Fence.
type watchedFence interface {
	Watch(ctx context.Context, lost func(error)) error
	Check() error
}

// keepFence watches over the fence until ctx ends.
func (d *daemon) keepFence(ctx context.Context) {
	if d.fence != nil {
		d.watchOver(ctx, d.fence, func(err error) { d.agent.Deliver(core.FenceLost{Reason: err.Error()}) })
	}
}

func (d *daemon) watchOver(ctx context.Context, f watchedFence, lost func(error)) {
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() { d.watchFence(ctx, f, lost) })
	check := time.NewTicker(fenceCheck)
	defer check.Stop()
	for {
		var err error
		select {
		case g := <-d.guard:
			err = d.guardAll(g)
		case <-check.C:
			err = f.Check()
		case <-ctx.Done():
			return
		}
		if err != nil {
			d.log.Error("the fence is not as it should be", "reason", err)
		}
	}
}

// watchFence has the fence tell of its loss until ctx ends. When that ends by itself it begins again, with a look at the tables; what
// is lost before is found by the next report of an owner.
func (d *daemon) watchFence(ctx context.Context, f watchedFence, lost func(error)) {
	for {
		err := f.Watch(ctx, lost)
		if ctx.Err() != nil {
			return
		}
		d.log.Error("nobody watches the fence for the moment: another program that removes it is noticed later", "again_in", watchAgain, "reason", err)
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
			return
		}
	}
}

// removeFence takes the fence away after an orderly end, when nothing is bound. After any other end it stays, closed.
func (d *daemon) removeFence(cause error) error {
	switch {
	case d.fence == nil:
		return nil
	case cause != nil || !d.mayOpenPort():
		return d.fence.Detach()
	}
	return errors.Join(d.fence.Remove(), d.fence.Detach())
}
