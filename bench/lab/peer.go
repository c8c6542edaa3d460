package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// Dir returns the node's own directory, for the files of the systems that are compared.
func (n *Node) Dir() string { return n.dir }

// StartProgram starts a program of a system that is compared with Remora, inside the node's namespace. Its output goes to
// a file in the node's directory. The laboratory ends it at the latest when it is torn down.
func (n *Node) StartProgram(what string, cmd *exec.Cmd) (*Process, error) {
	return n.startProgram(n.NS, what, cmd)
}

// StartOutside is like StartProgram for a program that enters the node's namespace by itself.
func (n *Node) StartOutside(what string, cmd *exec.Cmd) (*Process, error) {
	return n.startProgram(nil, what, cmd)
}

func (n *Node) startProgram(ns *Namespace, what string, cmd *exec.Cmd) (*Process, error) {
	p, err := startProcess(ns, what+" on "+n.Name, filepath.Join(n.dir, what+".log"), cmd)
	if err != nil {
		return nil, err
	}
	return p, n.lab.record.addProcess(p)
}

// ResetDaemons gives all daemons, which must not run, an empty state, an empty log and a configuration of the profile.
func (l *Lab) ResetDaemons(profile string) error {
	l.opts.Profile = profile
	if !exists(filepath.Join(l.dir, pkiDir)) {
		return l.PrepareDaemons()
	}
	var errs []error
	for _, n := range l.nodes {
		p := n.paths()
		if d := n.Daemon(); d != nil && d.Running() {
			return fmt.Errorf("reset the daemon of %s: it runs", n.Name)
		}
		errs = append(errs, os.RemoveAll(p.StateDir), os.MkdirAll(p.StateDir, 0o700), os.Truncate(p.Log, 0),
			os.WriteFile(p.ConfigFile, []byte(l.opts.config(l.nodes, p, 1)), 0o644))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reset the daemons: %w", err)
	}
	return nil
}

// Mend heals the network and starts the servers that do not run. It does not wait until they replicate.
func (l *Lab) Mend(ctx context.Context) error {
	if err := l.HealAll(); err != nil {
		return err
	}
	for _, n := range l.Servers() {
		if !n.Server().Running() {
			if err := n.StartServer(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Served returns the addresses of all groups, the first VIP first.
func (l *Lab) Served() []netip.Prefix { return l.opts.served() }

// SetCrowd changes how many addresses there are besides the VIPs, for daemons that are reset afterwards.
func (l *Lab) SetCrowd(n int) { l.opts.Crowd = n }

// Holders returns the names of all nodes that hold the first VIP now, by the kernel's events.
func (l *Lab) Holders() []string {
	events, _ := l.AddrEvents()
	var names []string
	for _, h := range Holdings(events, l.VIP()) {
		if h.To.IsZero() {
			names = append(names, h.Node)
		}
	}
	return names
}

// Announcements counts the frames by which nodes announced a VIP from one moment on.
func (l *Lab) Announcements(from Report) (int, error) {
	frames, err := l.ARPFrames()
	count := 0
	for _, f := range frames {
		if f.Gratuitous() && !f.Time.Before(from.Zero) && !f.Time.After(from.Until) {
			count++
		}
	}
	return count, err
}
