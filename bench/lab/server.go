package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// The accounts that every server of a laboratory has. root comes in without a password over the server's socket.
const (
	MonitorUser     = "remora"
	MonitorPassword = "remora-lab"
	ClientUser      = "client"
	ClientPassword  = "client-lab"
	replicaUser     = "repl"
	replicaPassword = "repl-lab"

	// Schema is a database in which ClientUser may do everything.
	Schema = "lab"
)

// ServerSpec is what a flavor must know of one server.
type ServerSpec struct {
	Node    string
	Addr    netip.Addr
	Dir     string // the server's own directory, made by Prepare
	Index   int    // among the servers, from 0
	Servers int    // how many there are
	// Replicas says that one server is the primary: all begin read-only and write into the same replication domain.
	Replicas bool
	// Listen is the server's bind_address.
	Listen string
}

// ID returns the server's server_id.
func (s ServerSpec) ID() uint32 { return uint32(s.Index) + 1 }

// Socket returns the path of the server's unix socket.
func (s ServerSpec) Socket() string { return filepath.Join(s.Dir, "mysql.sock") }

// Flavor knows one kind of database server.
type Flavor interface {
	// Prepare makes the server's directory with accounts and configuration. What servers have in common may be kept
	// under root for later laboratories.
	Prepare(ctx context.Context, root string, s ServerSpec) error
	// Command returns the command that runs the server in the foreground.
	Command(s ServerSpec) *exec.Cmd
	// Follow returns the statements that make the server a replica of source.
	Follow(source ServerSpec) []string
	// Source returns the address from which the server replicates, if both threads run, and else an error.
	Source(ctx context.Context, db *sql.DB) (string, error)
	// Identify returns the node whose server has this version in its greeting, empty if it cannot be told.
	Identify(version string) string
}

func (n *Node) serverSpec() ServerSpec {
	return ServerSpec{Node: n.Name, Addr: n.Addr, Dir: filepath.Join(n.dir, "mysql"), Index: n.index,
		Servers: len(n.lab.Servers()), Replicas: n.lab.opts.Replicas, Listen: n.lab.opts.wildcard()}
}

// prepareServer makes the directory of the node's server.
func (n *Node) prepareServer(ctx context.Context) error {
	if err := n.lab.opts.Server.Prepare(ctx, n.lab.opts.Root, n.serverSpec()); err != nil {
		return fmt.Errorf("prepare the server of %s: %w", n.Name, err)
	}
	return nil
}

// StartServer starts the node's database server and waits until it answers.
func (n *Node) StartServer(ctx context.Context) error {
	if err := n.LaunchServer(); err != nil {
		return err
	}
	if err := n.WaitServer(ctx); err != nil {
		return err
	}
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "server started"})
	return nil
}

// LaunchServer starts the node's database server and does not wait.
func (n *Node) LaunchServer() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server != nil && n.server.Running() {
		return fmt.Errorf("start the server of %s: it runs already", n.Name)
	}
	cmd := n.lab.opts.Server.Command(n.serverSpec())
	p, err := startProcess(n.NS, filepath.Base(cmd.Path)+" on "+n.Name, filepath.Join(n.dir, "server.log"), cmd)
	if err != nil {
		return err
	}
	n.server = p
	return n.lab.record.addProcess(p)
}

// WaitServer waits until the node's server answers on its socket.
func (n *Node) WaitServer(ctx context.Context) error {
	db, err := n.Admin()
	if err != nil {
		return err
	}
	defer db.Close()
	p := n.Server()
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) {
		if !p.Running() {
			return false, fmt.Errorf("it ended with status %d; see %s", p.ExitCode(), filepath.Join(n.dir, "server.log"))
		}
		return db.PingContext(ctx) == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the server of %s: %w", n.Name, err)
	}
	return nil
}

// Server returns the process of the node's server, nil if none was started.
func (n *Node) Server() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.server
}

var errNoServer = errors.New("no server was started")

// SignalServer sends a signal to the node's server: SIGKILL, SIGSTOP, SIGCONT.
func (n *Node) SignalServer(sig syscall.Signal) error {
	p := n.Server()
	if p == nil {
		return fmt.Errorf("%s: %w", n.Name, errNoServer)
	}
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "server: " + signalName(sig)})
	return p.Signal(sig)
}

// KillServer kills the node's server and waits for its end.
func (n *Node) KillServer() error {
	if err := n.SignalServer(syscall.SIGKILL); err != nil {
		return err
	}
	<-n.Server().Done()
	return nil
}

// RenewServer builds the node's server anew, as one that has replicated nothing yet, and starts it.
func (n *Node) RenewServer(ctx context.Context) error {
	if err := n.KillServer(); err != nil {
		return err
	}
	if err := os.RemoveAll(n.serverSpec().Dir); err != nil {
		return fmt.Errorf("remove the server of %s: %w", n.Name, err)
	}
	if err := n.prepareServer(ctx); err != nil {
		return err
	}
	return n.StartServer(ctx)
}

// StopServer shuts the node's server down in order.
func (n *Node) StopServer() error {
	p := n.Server()
	if p == nil {
		return nil
	}
	n.lab.note(Event{Source: SourceLab, Node: n.Name, What: "server: shutdown"})
	return p.Stop(30 * time.Second)
}

// Admin returns a handle to the node's server as root over its unix socket. The caller closes it.
func (n *Node) Admin() (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "unix", n.serverSpec().Socket()
	return openDB(cfg)
}

// DB returns a handle from inside the host's namespace to the server at address, as ClientUser. The caller closes it.
func (h *Host) DB(address netip.AddrPort, timeout time.Duration) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = ClientUser, ClientPassword, Schema
	cfg.Net, cfg.Addr = "tcp", address.String()
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = timeout, timeout, timeout
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return h.NS.Dial(ctx, network, addr)
	}
	return openDB(cfg)
}

func openDB(cfg *mysql.Config) (*sql.DB, error) {
	cfg.Logger = &mysql.NopLogger{} // failures are what a laboratory is for
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Addr, err)
	}
	return sql.OpenDB(connector), nil
}

// Exec runs statements as root in one session of the node's server.
func (n *Node) Exec(ctx context.Context, statements ...string) error {
	return n.execAll(ctx, statements)
}

// execAll runs statements as root on the node's server.
func (n *Node) execAll(ctx context.Context, statements []string) error {
	db, err := n.Admin()
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("on %s: %s: %w", n.Name, s, err)
		}
	}
	return nil
}

// StartServers prepares and starts all servers and joins them to a ring, in which each is a replica of the one before it,
// or makes all but the first one replicas of that one.
func (l *Lab) StartServers(ctx context.Context) error {
	servers := l.Servers()
	for _, n := range servers {
		if err := n.prepareServer(ctx); err != nil {
			return err
		}
	}
	if err := each(servers, func(n *Node) error { return n.StartServer(ctx) }); err != nil {
		return err
	}
	if l.opts.Replicas {
		return l.startReplicas(ctx)
	}
	return l.ring(ctx)
}

// ring makes each server, none of which replicates, a replica of the one before it.
func (l *Lab) ring(ctx context.Context) error {
	servers := l.Servers()
	if len(servers) < 2 {
		return nil
	}
	for i, n := range servers {
		source := servers[(i+len(servers)-1)%len(servers)]
		if err := n.execAll(ctx, l.opts.Server.Follow(source.serverSpec())); err != nil {
			return fmt.Errorf("make a ring: %w", err)
		}
	}
	return l.WaitReplicating(ctx)
}

func (l *Lab) startReplicas(ctx context.Context) error {
	servers := l.Servers()
	if len(servers) == 0 {
		return nil
	}
	primary, replicas := servers[0], servers[1:]
	if err := primary.execAll(ctx, []string{"SET GLOBAL read_only = OFF"}); err != nil {
		return err
	}
	for _, n := range replicas {
		if err := n.execAll(ctx, l.opts.Server.Follow(primary.serverSpec())); err != nil {
			return fmt.Errorf("make %s a replica of %s: %w", n.Name, primary.Name, err)
		}
	}
	return each(replicas, func(n *Node) error { return n.WaitReplicating(ctx) })
}

// WaitReplicating waits until replication runs on all servers.
func (l *Lab) WaitReplicating(ctx context.Context) error {
	if len(l.Servers()) < 2 {
		return nil
	}
	return each(l.Servers(), func(n *Node) error { return n.WaitReplicating(ctx) })
}

// WaitReplicating waits until both replication threads of the node's server run.
func (n *Node) WaitReplicating(ctx context.Context) error {
	db, err := n.Admin()
	if err != nil {
		return err
	}
	defer db.Close()
	var last error
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) {
		_, last = n.lab.opts.Server.Source(ctx, db)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for replication on %s: %w", n.Name, errors.Join(err, last))
	}
	return nil
}

// Source returns the address from which the node's server replicates, if both threads run, and else an error.
func (n *Node) Source(ctx context.Context) (string, error) {
	db, err := n.Admin()
	if err != nil {
		return "", err
	}
	defer db.Close()
	return n.lab.opts.Server.Source(ctx, db)
}

// each calls fn for all nodes at once and joins the errors.
func each(nodes []*Node, fn func(*Node) error) error {
	errs := make(chan error)
	for _, n := range nodes {
		go func() { errs <- fn(n) }()
	}
	var all []error
	for range nodes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func signalName(sig syscall.Signal) string {
	switch sig {
	case syscall.SIGKILL:
		return "kill -9"
	case syscall.SIGSTOP:
		return "frozen (SIGSTOP)"
	case syscall.SIGCONT:
		return "thawed (SIGCONT)"
	case syscall.SIGTERM:
		return "asked to end (SIGTERM)"
	case syscall.SIGHUP:
		return "asked to reload (SIGHUP)"
	}
	return sig.String()
}

// exists reports whether there is a file at path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
