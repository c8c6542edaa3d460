package lab

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// PowerOff takes a node's power away: first its cable, then its processes, then what its kernel knew.
func (n *Node) PowerOff() error {
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "power off: cable, processes, addresses"})
	errs := []error{n.SetCable(false)}
	for _, p := range []*Process{n.Daemon(), n.Server()} {
		if p != nil {
			errs = append(errs, p.Signal(syscall.SIGKILL))
		}
	}
	// Addresses go with the power, not when the last memory of the dead is freed; a second look then finds none.
	errs = append(errs, n.Forget())
	for _, p := range []*Process{n.Daemon(), n.Server()} {
		if p != nil {
			<-p.Done()
		}
	}
	errs = append(errs, n.Forget())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the power of %s away: %w", n.Name, err)
	}
	return nil
}

// PowerOn brings a node back: cable, server, daemon. It waits for the server only.
func (n *Node) PowerOn(ctx context.Context) error {
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "power on"})
	if err := n.SetCable(true); err != nil {
		return err
	}
	if n.lab.opts.Server != nil && !n.Witness {
		if err := n.StartServer(ctx); err != nil {
			return err
		}
	}
	if n.lab.opts.Remora == "" {
		return nil
	}
	return n.StartDaemon()
}
