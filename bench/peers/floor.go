package peers

import (
	"context"
	"errors"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// Floor is what no daemon can beat in this laboratory: an oracle that knows of a fault in the moment of it, asks nobody, and
// moves the address by itself. What is left is the kernel's part, one frame, and the client's.
type Floor struct {
	Lab *lab.Lab

	hand *lab.Hand
	at   string // the node that has the address
}

// Name returns "floor".
func (*Floor) Name() string { return "floor" }

// Title says that nothing is detected and nothing is agreed on.
func (*Floor) Title() string {
	return "an oracle: the laboratory itself moves the address in the moment of the fault"
}

// Start gives the address to the first server.
func (f *Floor) Start(ctx context.Context) error {
	var err error
	if f.hand, err = f.Lab.OpenHand(); err != nil {
		return err
	}
	f.at = f.Lab.Servers()[0].Name
	if err := f.hand.Give(f.at); err != nil {
		return err
	}
	return served(ctx, f.Lab)
}

// Stop takes the address from all nodes.
func (f *Floor) Stop(context.Context) error {
	if f.hand == nil {
		return nil
	}
	var errs []error
	for _, n := range f.Lab.Holders() {
		errs = append(errs, f.hand.Take(n))
	}
	errs = append(errs, f.hand.Close())
	f.hand, f.at = nil, ""
	return errors.Join(errs...)
}

// Settle takes the address from a node that had vanished with it, and announces it once more where it is now: the other may have
// answered for it meanwhile.
func (f *Floor) Settle(ctx context.Context) error {
	for _, n := range f.Lab.Holders() {
		if n == f.at {
			continue
		}
		if err := f.hand.Take(n); err != nil {
			return err
		}
	}
	if err := f.hand.Announce(f.at); err != nil {
		return err
	}
	return served(ctx, f.Lab)
}

// Move takes the address from one node and gives it to another.
func (f *Floor) Move(_ context.Context, from, to string) error {
	if err := f.hand.Take(from); err != nil {
		return err
	}
	f.at = to
	return f.hand.Give(to)
}

// Faulted is to be called as soon as something has happened to a node, which the oracle does not see by itself: the address goes to
// the next node, if it is still on that one. From a node that is gone, because nobody reaches it, it is not taken.
func (f *Floor) Faulted(ctx context.Context, node string, gone bool) error {
	next := f.next(node)
	switch {
	case f.at != node:
		return nil
	case gone:
		f.at = next
		return f.hand.Give(next)
	}
	return f.Move(ctx, node, next)
}

// next returns the node that comes after another one, going round.
func (f *Floor) next(node string) string {
	servers := f.Lab.Servers()
	for i, n := range servers {
		if n.Name == node {
			return servers[(i+1)%len(servers)].Name
		}
	}
	return servers[0].Name
}

// errOracle says that there is nothing to kill or freeze.
var errOracle = errors.New("the floor is no program that could be killed or frozen")

// Kill fails: nothing runs on the nodes.
func (*Floor) Kill(string) error { return errOracle }

// Freeze fails like Kill.
func (*Floor) Freeze(string) error { return errOracle }

// Thaw fails like Kill.
func (*Floor) Thaw(string) error { return errOracle }

// Config says what is done, for there is no file.
func (*Floor) Config() string {
	return `No configuration. In the moment of the fault the laboratory removes the address from the old node, unless that has
vanished, adds it on the next one (rtnetlink, sockets that are open already), and sends one gratuitous ARP request.
`
}

// Patience is long beside what it takes.
func (*Floor) Patience() time.Duration { return 5 * time.Second }
