package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// UCARP is ucarp, one instance per node. It knows nothing of the server, so a loop beside it asks that a query and ends
// ucarp when there is no answer, as its users' scripts do.
type UCARP struct {
	Lab *lab.Lab
	// Label is the system's name.
	Label string
	// Base is the interval of the advertisements in seconds, to which each node adds Skew or a little more, in 1/256 s.
	Base, Skew int
	// Script is how long the loop waits between two queries, ScriptTimeout how long one may take.
	Script, ScriptTimeout time.Duration

	running, loops map[string]*lab.Process
}

// CommonUCARP is ucarp with the intervals that it has by default, and a query every two seconds.
func CommonUCARP(l *lab.Lab) *UCARP {
	return &UCARP{Lab: l, Label: "ucarp-1s", Base: 1, Script: 2 * time.Second, ScriptTimeout: time.Second}
}

// FastestUCARP is ucarp with the shortest intervals that keep the nodes apart, and a query every 100 ms.
func FastestUCARP(l *lab.Lab) *UCARP {
	return &UCARP{Lab: l, Label: "ucarp-fast", Skew: 3, Script: 100 * time.Millisecond, ScriptTimeout: 100 * time.Millisecond}
}

const (
	// ucarpDead is after how many intervals without a word a node counts as dead: ucarp's own default.
	ucarpDead = 3
	// ucarpSteps is by how many 1/256 s the nodes' intervals differ, which is their order.
	ucarpSteps = 1
)

// Name returns the label.
func (u *UCARP) Name() string { return u.Label }

// Title says how often it advertises and asks the server.
func (u *UCARP) Title() string {
	return fmt.Sprintf("ucarp, adverts of %v, a loop that asks the server every %v", u.advert().Round(time.Millisecond), u.Script)
}

// advert is the interval of the first node.
func (u *UCARP) advert() time.Duration {
	return time.Duration(u.Base)*time.Second + time.Duration(u.Skew)*time.Second/256
}

func (u *UCARP) file(n *lab.Node, name string) string { return filepath.Join(n.Dir(), "ucarp"+name) }

// args is the command line of the node that comes as number i.
func (u *UCARP) args(n *lab.Node, i int) []string {
	return []string{"--interface=" + lab.Interface, "--srcip=" + n.Addr.String(), "--vhid=77", "--pass=" + lab.MonitorPassword,
		"--addr=" + u.Lab.VIP().String(), fmt.Sprintf("--advbase=%d", u.Base), fmt.Sprintf("--advskew=%d", u.Skew+i*ucarpSteps),
		fmt.Sprintf("--deadratio=%d", ucarpDead), "--shutdown", "--upscript=" + u.file(n, ".up"), "--downscript=" + u.file(n, ".down")}
}

// script is what ucarp runs to bind or unbind the address, with the interface and the address as its arguments.
func script(verb string) []byte {
	return []byte("#!/bin/sh\nexec ip addr " + verb + " \"$2\"/32 dev \"$1\"\n")
}

func (u *UCARP) start(n *lab.Node, i int) error {
	err := errors.Join(
		os.WriteFile(u.file(n, ".up"), script("add"), 0o755),
		os.WriteFile(u.file(n, ".down"), script("del"), 0o755),
		os.WriteFile(u.file(n, ".check"), []byte(checkScript), 0o755))
	if err != nil {
		return fmt.Errorf("configure ucarp on %s: %w", n.Name, err)
	}
	p, err := n.StartProgram("ucarp", exec.Command("ucarp", u.args(n, i)...))
	if err != nil {
		return err
	}
	u.running[n.Name] = p
	loop := fmt.Sprintf("while timeout %g %s; do sleep %g; done; kill %d", u.ScriptTimeout.Seconds(), u.file(n, ".check"),
		u.Script.Seconds(), p.Pid())
	u.loops[n.Name], err = n.StartProgram("check", exec.Command("sh", "-c", loop))
	return err
}

// Start starts it on all nodes.
func (u *UCARP) Start(ctx context.Context) error {
	u.running, u.loops = map[string]*lab.Process{}, map[string]*lab.Process{}
	for i, n := range u.Lab.Servers() {
		if err := u.start(n, i); err != nil {
			return err
		}
	}
	return u.Settle(ctx)
}

// Stop ends it on all nodes in order.
func (u *UCARP) Stop(ctx context.Context) error { return endAll(ctx, u.Lab, u.loops, u.running) }

// Settle starts what has ended, and waits until one node serves.
func (u *UCARP) Settle(ctx context.Context) error {
	for i, n := range u.Lab.Servers() {
		if u.running[n.Name].Running() && u.loops[n.Name].Running() {
			continue
		}
		if err := errors.Join(u.loops[n.Name].Stop(10*time.Second), u.running[n.Name].Stop(10*time.Second)); err != nil {
			return err
		}
		if err := unbind(ctx, u.Lab, n.Name); err != nil {
			return err
		}
		if err := u.start(n, i); err != nil {
			return err
		}
	}
	// ucarp tells nobody when it is a backup: it must have heard a master, or become one.
	if err := pause(ctx, u.Script+2*ucarpDead*u.advert()+300*time.Millisecond); err != nil {
		return err
	}
	return servedBy(ctx, u.Lab, u.running)
}

// Move asks the owner's ucarp to be a backup; who follows is by the others' intervals.
func (u *UCARP) Move(_ context.Context, from, _ string) error {
	return u.running[from].Signal(syscall.SIGUSR2)
}

// Kill kills ucarp.
func (u *UCARP) Kill(node string) error { return u.running[node].Signal(syscall.SIGKILL) }

// Freeze stops ucarp, Thaw lets it run on.
func (u *UCARP) Freeze(node string) error { return u.running[node].Signal(syscall.SIGSTOP) }

// Thaw lets ucarp run on.
func (u *UCARP) Thaw(node string) error { return u.running[node].Signal(syscall.SIGCONT) }

// Config returns the first node's command line and scripts.
func (u *UCARP) Config() string {
	n := u.Lab.Servers()[0]
	return "ucarp " + strings.Join(u.args(n, 0), " ") + "\n\n" + string(script("add")) + "\n" + string(script("del")) + "\n" + checkScript
}

// Patience covers two rounds of the loop and a death that is noticed.
func (u *UCARP) Patience() time.Duration {
	return 2*(u.Script+u.ScriptTimeout) + 2*ucarpDead*u.advert() + 2*time.Second
}
