package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pkiDir is the directory of the certificates inside the laboratory's.
const pkiDir = "pki"

var errNoDaemon = errors.New("no daemon was started")

// paths returns the places of the files of the node's daemon.
func (n *Node) paths() nodePaths {
	at := func(name string) string { return filepath.Join(n.dir, name) }
	cert := func(name string) string { return filepath.Join(n.lab.dir, pkiDir, name) }
	return nodePaths{ConfigFile: at("remora.toml"), StateDir: at("state"), Socket: at("remora.sock"), Log: at("remora.log"),
		Password: at("mysql.password"), ReplicaPassword: at("replication.password"), CA: cert("ca.pem"), Cert: cert(n.Name + ".pem"), Key: cert(n.Name + ".key")}
}

// ConfigPath returns the path of the configuration file of the node's daemon.
func (n *Node) ConfigPath() string { return n.paths().ConfigFile }

// SocketPath returns the path of the unix socket of the node's daemon.
func (n *Node) SocketPath() string { return n.paths().Socket }

// LogPath returns the path of the log of the node's daemon, one JSON object per line.
func (n *Node) LogPath() string { return n.paths().Log }

// StateDir returns the directory in which the node's daemon keeps its state.
func (n *Node) StateDir() string { return n.paths().StateDir }

// PrepareDaemons makes certificates, as an operator would, and writes password and configuration of all nodes.
func (l *Lab) PrepareDaemons() error {
	dir := filepath.Join(l.dir, pkiDir)
	ctx := context.Background()
	if err := run(ctx, "", l.opts.Remora, "pki", "init", "--cluster", l.opts.Name, "--dir", dir); err != nil {
		return err
	}
	for _, n := range l.nodes {
		p := n.paths()
		err := errors.Join(
			run(ctx, "", l.opts.Remora, "pki", "issue", n.Name, "--dir", dir),
			os.MkdirAll(p.StateDir, 0o700),
			os.WriteFile(p.Password, []byte(MonitorPassword+"\n"), 0o600),
			os.WriteFile(p.ReplicaPassword, []byte(replicaPassword+"\n"), 0o600),
			os.WriteFile(p.ConfigFile, []byte(l.opts.config(l.nodes, p, 1)), 0o644))
		if err != nil {
			return fmt.Errorf("prepare the daemon of %s: %w", n.Name, err)
		}
		if l.opts.StateMiB > 0 {
			if err := n.mountState(ctx, l.opts.StateMiB); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetVersion writes a configuration file of another version, with nothing else changed, and has the daemon read it.
func (n *Node) SetVersion(version int) error {
	p := n.paths()
	if err := os.WriteFile(p.ConfigFile, []byte(n.lab.opts.config(n.lab.nodes, p, version)), 0o644); err != nil {
		return fmt.Errorf("write version %d of the configuration of %s: %w", version, n.Name, err)
	}
	return n.SignalDaemon(syscall.SIGHUP)
}

// wipe empties the state directory of a daemon that does not run, as setting the machine up anew does.
func (n *Node) wipe() error {
	entries, err := os.ReadDir(n.StateDir())
	if err != nil {
		return fmt.Errorf("read the state directory of %s: %w", n.Name, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.StateDir(), e.Name())); err != nil {
			return fmt.Errorf("empty the state directory of %s: %w", n.Name, err)
		}
	}
	return nil
}

// StartDaemons prepares and starts the daemons of all nodes at once. It does not wait for anything.
func (l *Lab) StartDaemons() error {
	if err := l.PrepareDaemons(); err != nil {
		return err
	}
	return each(l.nodes, func(n *Node) error { return n.StartDaemon() })
}

// StartDaemon starts the node's daemon. Further arguments go to "remora run".
func (n *Node) StartDaemon(args ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.daemon != nil && n.daemon.Running() {
		return fmt.Errorf("start the daemon of %s: it runs already", n.Name)
	}
	args = append([]string{"run", "--config", n.ConfigPath(), "--node", n.Name, "--log-format", "json"}, args...)
	p, err := startProcess(n.NS, "remora on "+n.Name, n.LogPath(), exec.Command(n.lab.opts.Remora, args...))
	if err != nil {
		return err
	}
	n.daemon = p
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "daemon started"})
	return n.lab.record.addProcess(p)
}

// Daemon returns the process of the node's daemon, nil if none was started.
func (n *Node) Daemon() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.daemon
}

// SignalDaemon sends a signal to the node's daemon: SIGKILL, SIGSTOP, SIGCONT, SIGHUP.
func (n *Node) SignalDaemon(sig syscall.Signal) error {
	p := n.Daemon()
	if p == nil {
		return fmt.Errorf("%s: %w", n.Name, errNoDaemon)
	}
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "daemon: " + signalName(sig)})
	return p.Signal(sig)
}

// KillDaemon kills the node's daemon and waits for its end.
func (n *Node) KillDaemon() error {
	if err := n.SignalDaemon(syscall.SIGKILL); err != nil {
		return err
	}
	<-n.Daemon().Done()
	return nil
}

// StopDaemon sends SIGTERM to the node's daemon and waits for an orderly end with status 0.
func (n *Node) StopDaemon() error {
	p := n.Daemon()
	if p == nil {
		return nil
	}
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "daemon: " + signalName(syscall.SIGTERM)})
	const grace = 15 * time.Second
	if err := p.Stop(grace); err != nil {
		return err
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("the daemon of %s ended with status %d; see %s", n.Name, code, n.LogPath())
	}
	return nil
}

// Remora runs the daemon's binary as a client of the node's daemon inside the node's namespace and returns what it
// printed on standard output.
func (n *Node) Remora(ctx context.Context, args ...string) ([]byte, error) {
	return n.remora(ctx, 0, args...)
}

// remora is Remora with a niceness.
func (n *Node) remora(ctx context.Context, nice int, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, n.lab.opts.Remora, args...)
	cmd.Env = append(os.Environ(), "REMORA_SOCKET="+n.SocketPath())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	var out []byte
	err := n.NS.Do(func() (err error) {
		if nice != 0 { // of this thread, which the child has it from
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, nice); err != nil {
				return fmt.Errorf("lower the priority of a thread: %w", err)
			}
			defer func() { err = errors.Join(err, unix.Setpriority(unix.PRIO_PROCESS, 0, 0)) }()
		}
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		return out, fmt.Errorf("remora %v on %s: %w: %s", args, n.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// Up starts the servers, the daemons and the client stream, and waits until the VIP answers. Parts that the options do
// not name are left out.
func (l *Lab) Up(ctx context.Context, stream StreamOptions) error {
	if l.opts.Server != nil {
		if err := l.StartServers(ctx); err != nil {
			return err
		}
	}
	if l.opts.Remora == "" {
		return nil
	}
	s, err := l.StartStream(stream)
	if err != nil {
		return err
	}
	if err := l.StartDaemons(); err != nil {
		return err
	}
	return l.WaitServed(ctx, s)
}

// WaitServed waits until a client gets answers at its address. It fails early when a daemon ends meanwhile.
func (l *Lab) WaitServed(ctx context.Context, s *Stream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, n := range l.nodes {
		p := n.Daemon()
		if p == nil || !p.Running() {
			continue
		}
		go func() {
			select {
			case <-ctx.Done():
			case <-p.Done():
				cancel(fmt.Errorf("%s ended with status %d; see %s", p.What, p.ExitCode(), n.LogPath()))
			}
		}()
	}
	if err := s.WaitAnswered(ctx, 20); err != nil {
		return fmt.Errorf("wait for answers at %v: %w", s.opts.Target, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}

// WaitOwner waits until node, or any node if it is empty, holds the VIP by the kernel's events, and returns the holder.
func (l *Lab) WaitOwner(ctx context.Context, node string) (string, error) {
	var holder string
	err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
		holder = l.Holder(l.VIP())
		return holder != "" && (node == "" || holder == node), nil
	})
	if err != nil {
		return holder, fmt.Errorf("wait until %q holds %v (now: %q): %w", node, l.VIP(), holder, err)
	}
	return holder, nil
}

// WaitMoved waits until another node than from holds the VIP by the kernel's events, and returns its name.
func (l *Lab) WaitMoved(ctx context.Context, from string) (string, error) {
	var holder string
	err := poll(ctx, 2*time.Millisecond, func() (bool, error) {
		holder = l.Holder(l.VIP())
		return holder != "" && holder != from, nil
	})
	if err != nil {
		return holder, fmt.Errorf("wait until another node than %s holds %v (now: %q): %w", from, l.VIP(), holder, err)
	}
	return holder, nil
}

// operatorNice is the niceness of an operator's command. Its start takes ten milliseconds of a processor, which on a cluster of
// machines no client has to wait for.
const operatorNice = 10

// Switchover moves the laboratory's group to a node as an operator would, on that node.
func (l *Lab) Switchover(ctx context.Context, to string) error {
	l.Note(to, "operator: switchover "+Group+" --to "+to)
	_, err := l.Node(to).remora(ctx, operatorNice, "switchover", Group, "--to", to)
	return err
}
