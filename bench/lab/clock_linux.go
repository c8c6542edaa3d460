package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// step moves the machine's wall clock: network namespaces have none of their own.
func step(by time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("read the wall clock: %w", err)
	}
	to := unix.NsecToTimespec(now.Nano() + by.Nanoseconds())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &to); err != nil {
		return fmt.Errorf("step the wall clock by %v: %w: this needs CAP_SYS_TIME", by, err)
	}
	return nil
}

// stepped moves the wall clock forward, then as far back, and in the end to where it belongs. Each step is many leases long.
func stepped(ctx context.Context, _ *Lab, _ Scene) (undo, error) {
	const by = 10 * time.Second
	off := time.Duration(0)
	end := func(context.Context) error {
		err := step(-off)
		if err == nil {
			off = 0
		}
		return err
	}
	for _, d := range []time.Duration{by, -2 * by} {
		if err := step(d); err != nil {
			return end, err
		}
		off += d
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return end, err
		}
	}
	return end, nil
}

// twofold gives a node a second interface on the segment, which end takes away again.
func twofold(ctx context.Context, l *Lab, s Scene) (extra []ProbedInterface, end func(context.Context) error, err error) {
	const name = "eth1"
	n := l.Node(s.Target)
	end = func(ctx context.Context) error {
		return run(ctx, "", "ip", "-n", n.NS.Name, "link", "del", name)
	}
	mac, err := n.AddInterface(ctx, name)
	if err != nil {
		return nil, nil, errors.Join(err, end(context.WithoutCancel(ctx)))
	}
	return []ProbedInterface{{Node: n.Name, MAC: mac}}, end, nil
}
