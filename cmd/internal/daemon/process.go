package daemon

import (
	"os"
	"runtime/debug"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/realtime"
	"github.com/remora-ha/remora/consensus"
)

// A daemon whose memory is locked keeps a heap of fixed size: the runtime collects at 4 MiB x collectAt / 100, and gives
// nothing back to the kernel of what it needs up to there. All of it is touched at the start.
const (
	collectAt = 400
	prefault  = 17 << 20
)

// settle gives the process its scheduling class and locks its memory. What can not be had is logged, and shown by status:
// without it a busy host may cost a lease, and nothing else.
func (d *daemon) settle() {
	want := d.config().Process
	scheduling, err := realtime.Schedule(realtime.Class(want.Scheduling.Class), want.Scheduling.Priority)
	if err != nil {
		d.log.Warn("the daemon has not got the scheduling class that the configuration asks for: a busy host may cost it a lease", "has", scheduling, "reason", err)
	}
	locked, err := realtime.LockMemory(realtime.Lock(want.LockMemory))
	if err != nil {
		d.log.Warn("the daemon's memory is not locked: pages that the kernel takes away cost time when they are needed", "reason", err)
	}
	if locked != realtime.LockNothing && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
		realtime.Prefault(prefault)
	}
	d.scheduling, d.locked = scheduling, locked
	d.log.Info("the process", "scheduling", scheduling, "locked_memory", locked)
}

// processStatus is what status tells of this process.
func (d *daemon) processStatus(c consensus.Status) control.Process {
	worst, stops := realtime.WorstPause()
	p := control.Process{Scheduling: d.scheduling, LockedMemory: string(d.locked), Watchdog: string(d.config().Process.Watchdog),
		KernelLease: d.kernelLease(), CertificateEnds: firstEnd(c).UTC(), GCPauseMaxUS: worst.Microseconds(), GCPauses: stops,
		AppendP99US: c.AppendP99.Microseconds()}
	p.OldConnections, p.OldConnectionsWhy = d.oldConnections()
	p.WatchdogArmed = d.keeper != nil && d.keeper.dog.Armed()
	return p
}

// kernelLease says by what this node's kernel holds leases.
func (d *daemon) kernelLease() string {
	switch {
	case d.fence != nil:
		return "nftables"
	case d.unfenced:
		return "lifetime"
	default:
		return "none"
	}
}
