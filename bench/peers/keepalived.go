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

// Keepalived is keepalived with VRRP version 3, one instance per node, nopreempt.
type Keepalived struct {
	Lab *lab.Lab
	// Label is the system's name.
	Label string
	// Advert is the interval of the advertisements.
	Advert time.Duration
	// Script is the interval at which a script asks the server a query, ScriptTimeout how long it may take, Fall how often
	// it must fail. keepalived 2.2 runs its scripts once in a second at most: a shorter interval is that of a loop beside
	// it, which writes the outcome into a tracked file.
	Script, ScriptTimeout time.Duration
	Fall                  int
	// Priority is that of the first node, PriorityStep by how much less the next one has. A backup waits (256 - priority)/256 of
	// the advertisements' interval longer than it must (RFC 5798, 6.1): near 255 that is nothing, and where two wait for nearly
	// the same both become master, and clients may know the one that yields until the other announces itself again, 5 s later.
	Priority, PriorityStep int
	// TrackProcess has keepalived watch the server by the kernel's process events.
	TrackProcess bool
	// Realtime runs it in a real-time scheduling class.
	Realtime bool

	running, loops map[string]*lab.Process
}

// Common is keepalived as most guides configure it: adverts each second, and a script every two.
func Common(l *lab.Lab) *Keepalived {
	return &Keepalived{Lab: l, Label: "keepalived-1s", Advert: time.Second, Script: 2 * time.Second,
		ScriptTimeout: time.Second, Fall: 2, Priority: 110, PriorityStep: 5}
}

// Brisk is keepalived with adverts of 100 ms, which watches the process and asks it each second.
func Brisk(l *lab.Lab) *Keepalived {
	return &Keepalived{Lab: l, Label: "keepalived-100ms", Advert: 100 * time.Millisecond, Script: time.Second,
		ScriptTimeout: time.Second, Fall: 1, TrackProcess: true, Priority: 250, PriorityStep: 40}
}

// Fastest is keepalived as fast as it can sanely go: adverts of 10 ms, the process watched, a script each second.
func Fastest(l *lab.Lab) *Keepalived {
	return &Keepalived{Lab: l, Label: "keepalived-10ms", Advert: 10 * time.Millisecond, Script: time.Second,
		ScriptTimeout: time.Second, Fall: 1, TrackProcess: true, Realtime: true, Priority: 250, PriorityStep: 40}
}

// Checked is Fastest with a query every 100 ms that may take as long: it notices a hang sooner, and a busy machine may
// make it give up a server that is well.
func Checked(l *lab.Lab) *Keepalived {
	k := Fastest(l)
	k.Label, k.Script, k.ScriptTimeout = "keepalived-10ms-check", 100*time.Millisecond, 100*time.Millisecond
	return k
}

// Name returns the label.
func (k *Keepalived) Name() string { return k.Label }

// Title says what is tracked and how often.
func (k *Keepalived) Title() string {
	t := fmt.Sprintf("keepalived, adverts of %v, script every %v", k.Advert, k.Script)
	if k.TrackProcess {
		t += ", track_process"
	}
	return t
}

func (k *Keepalived) file(n *lab.Node, name string) string {
	return filepath.Join(n.Dir(), "keepalived"+name)
}

// config is the configuration of the node that comes as number i. keepalived knows the server by its whole command line, so it
// must have been started.
func (k *Keepalived) config(n *lab.Node, i int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("net_namespace %s", n.NS.Name)
	line("global_defs {\n router_id %s\n vrrp_version 3\n script_user root\n enable_script_security", n.Name)
	if k.Realtime {
		line(" vrrp_rt_priority 10")
	}
	line("}")
	if !k.looped() {
		line("vrrp_script server {\n script \"%s\"\n interval %g\n timeout %g\n fall %d\n rise 1\n}", k.file(n, ".check"),
			k.Script.Seconds(), k.ScriptTimeout.Seconds(), k.Fall)
	} else {
		line("track_file server {\n file %s\n weight 0\n init_file 0 overwrite\n}", k.file(n, ".health"))
	}
	if k.TrackProcess {
		line("vrrp_track_process mariadbd {\n process %s\n full_command\n param_match initial\n weight 0\n quorum 1\n}",
			strings.Join(n.Server().Args(), " "))
	}
	line("track_file planned {\n file %s\n weight 0\n init_file 0 overwrite\n}", k.file(n, ".move"))
	line("vrrp_instance vip {\n state BACKUP\n nopreempt\n interface %s\n virtual_router_id 77\n priority %d\n advert_int %g",
		lab.Interface, k.Priority-i*k.PriorityStep, k.Advert.Seconds())
	if k.looped() {
		line(" track_file {\n  planned\n  server\n }")
	} else {
		line(" track_script {\n  server\n }\n track_file {\n  planned\n }")
	}
	if k.TrackProcess {
		line(" track_process {\n  mariadbd\n }")
	}
	line(" virtual_ipaddress {\n  %v/32 dev %s\n }", k.Lab.VIP(), lab.Interface)
	if more := k.Lab.Served()[1:]; len(more) > 0 { // an advertisement has no room for them
		line(" virtual_ipaddress_excluded {")
		for _, p := range more {
			line("  %v dev %s", p, lab.Interface)
		}
		line(" }")
	}
	line("}")
	return b.String()
}

func (k *Keepalived) looped() bool { return k.Script < time.Second }

const checkScript = "#!/bin/sh\nexec mariadb --no-defaults --connect-timeout=1 -h 127.0.0.1 -u " + lab.MonitorUser +
	" -p" + lab.MonitorPassword + " -e 'SELECT 1' >/dev/null 2>&1\n"

func (k *Keepalived) start(n *lab.Node, i int) error {
	err := errors.Join(
		os.WriteFile(k.file(n, ".conf"), []byte(k.config(n, i)), 0o644),
		os.WriteFile(k.file(n, ".check"), []byte(checkScript), 0o755))
	if err != nil {
		return fmt.Errorf("configure keepalived on %s: %w", n.Name, err)
	}
	cmd := exec.Command("keepalived", "--dont-fork", "--log-console", "--vrrp", "-f", k.file(n, ".conf"),
		"-p", k.file(n, ".pid"), "-r", k.file(n, "-vrrp.pid"))
	p, err := n.StartOutside("keepalived", cmd)
	if err != nil {
		return err
	}
	k.running[n.Name] = p
	if !k.looped() || k.loops[n.Name] != nil {
		return nil
	}
	loop := fmt.Sprintf(`old=; while :; do if timeout %g %s; then new=0; else new=1; fi
if [ "$new" != "$old" ]; then echo $new >%s; old=$new; fi; sleep %g; done`,
		k.ScriptTimeout.Seconds(), k.file(n, ".check"), k.file(n, ".health"), k.Script.Seconds())
	k.loops[n.Name], err = n.StartProgram("check", exec.Command("sh", "-c", loop))
	return err
}

// Start starts it on all nodes.
func (k *Keepalived) Start(ctx context.Context) error {
	k.running, k.loops = map[string]*lab.Process{}, map[string]*lab.Process{}
	for i, n := range k.Lab.Servers() {
		if err := k.start(n, i); err != nil {
			return err
		}
	}
	return k.Settle(ctx)
}

// Stop ends it on all nodes in order.
func (k *Keepalived) Stop(ctx context.Context) error { return endAll(ctx, k.Lab, k.loops, k.running) }

// Settle starts what was killed, ends a planned absence, and waits until tracking has seen that all is well.
func (k *Keepalived) Settle(ctx context.Context) error {
	for i, n := range k.Lab.Servers() {
		if err := os.WriteFile(k.file(n, ".move"), []byte("0\n"), 0o644); err != nil {
			return fmt.Errorf("end a planned absence of %s: %w", n.Name, err)
		}
		if k.running[n.Name].Running() {
			continue
		}
		if err := unbind(ctx, k.Lab, n.Name); err != nil {
			return err
		}
		if err := k.start(n, i); err != nil {
			return err
		}
	}
	// keepalived tells nobody when a backup is fit again: a round of its script and of its adverts must have passed.
	if err := pause(ctx, k.Script+4*k.Advert+300*time.Millisecond); err != nil {
		return err
	}
	return servedBy(ctx, k.Lab, k.running)
}

// Move makes the owner unfit by a tracked file, which keepalived watches by inotify.
func (k *Keepalived) Move(_ context.Context, from, _ string) error {
	return os.WriteFile(k.file(k.Lab.Node(from), ".move"), []byte("1\n"), 0o644)
}

// signal sends a signal to the VRRP process, which does the work, and to its parent.
func (k *Keepalived) signal(node string, sig syscall.Signal) error {
	p := k.running[node]
	text, err := os.ReadFile(k.file(k.Lab.Node(node), "-vrrp.pid"))
	if err != nil {
		return fmt.Errorf("find keepalived on %s: %w", node, err)
	}
	var child int
	if _, err := fmt.Sscan(string(text), &child); err != nil {
		return fmt.Errorf("find keepalived on %s: %w", node, err)
	}
	if sig == syscall.SIGCONT { // the worker first, or its parent finds it missing
		return errors.Join(syscall.Kill(child, sig), p.Signal(sig))
	}
	return errors.Join(p.Signal(sig), syscall.Kill(child, sig))
}

// Kill kills both processes.
func (k *Keepalived) Kill(node string) error { return k.signal(node, syscall.SIGKILL) }

// Freeze stops both processes.
func (k *Keepalived) Freeze(node string) error { return k.signal(node, syscall.SIGSTOP) }

// Thaw lets both run on.
func (k *Keepalived) Thaw(node string) error { return k.signal(node, syscall.SIGCONT) }

// Config returns the first node's file.
func (k *Keepalived) Config() string { return k.config(k.Lab.Servers()[0], 0) }

// Patience covers two rounds of script and adverts.
func (k *Keepalived) Patience() time.Duration {
	return time.Duration(k.Fall+1)*(k.Script+k.ScriptTimeout) + 5*k.Advert + 2*time.Second
}
