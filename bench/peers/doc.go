// Package peers runs in a laboratory the systems that Remora is compared with, and Remora itself, behind one interface.
// The systems are installed from Debian (deploy/deps.sh bench) and run in the laboratory's namespaces only.
package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// System is something that keeps the laboratory's address on a healthy node.
type System interface {
	// Name is the system's short name in tables and files.
	Name() string
	// Title says in a few words how the system is configured.
	Title() string
	// Start starts the system on all nodes and waits until the address is served.
	Start(ctx context.Context) error
	// Stop ends it on all nodes and leaves no address behind.
	Stop(ctx context.Context) error
	// Settle brings the system back to health after a scenario; servers and network are well already.
	Settle(ctx context.Context) error
	// Move moves the address away from a node in a planned way, to another node if the system lets one choose.
	Move(ctx context.Context, from, to string) error
	// Kill kills the system's processes on a node, Freeze stops them where they stand, Thaw lets them run on.
	Kill(node string) error
	Freeze(node string) error
	Thaw(node string) error
	// Config returns the configuration of one node, for the record.
	Config() string
	// Patience is how long a takeover may take before it counts as not coming.
	Patience() time.Duration
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// served waits until the client gets answers and exactly one node holds the address.
func served(ctx context.Context, l *lab.Lab) error {
	for {
		if err := l.WaitServed(ctx, l.Stream()); err != nil {
			return err
		}
		if len(l.Holders()) == 1 {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// lastLines is how much of each program's log an error has.
const lastLines = 4

// servedBy is served, and where nobody serves the error has what the system's programs printed last, by node.
func servedBy(ctx context.Context, l *lab.Lab, running map[string]*lab.Process) error {
	err := served(ctx, l)
	if err == nil {
		return nil
	}
	var b strings.Builder
	for _, node := range slices.Sorted(maps.Keys(running)) {
		p := running[node]
		lines, errLog := p.LastLines(lastLines)
		if errLog != nil {
			lines = []string{errLog.Error()}
		}
		state := "runs"
		if !p.Running() {
			state = fmt.Sprintf("has ended with status %d", p.ExitCode())
		}
		fmt.Fprintf(&b, "\n%s %s and said last:\n\t%s", p.What, state, strings.Join(lines, "\n\t"))
	}
	return fmt.Errorf("%w%s", err, b.String())
}

// endAll ends processes in order and removes the addresses that they leave.
func endAll(ctx context.Context, l *lab.Lab, processes ...map[string]*lab.Process) error {
	var errs []error
	for _, ps := range processes {
		for _, p := range ps {
			errs = append(errs, p.Stop(10*time.Second))
		}
	}
	for _, n := range l.Holders() {
		errs = append(errs, unbind(ctx, l, n))
	}
	return errors.Join(errs...)
}

// unbind removes the address from a node, if it is there: a killed system has left it, and an operator would have to.
func unbind(ctx context.Context, l *lab.Lab, node string) error {
	if !slices.Contains(l.Holders(), node) {
		return nil
	}
	_, err := l.Node(node).NS.Command(ctx, "ip", "addr", "del", l.VIP().String()+"/32", "dev", lab.Interface)
	return err
}
