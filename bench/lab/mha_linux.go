package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The account with which MHA logs in at every server.
const (
	mhaUser     = "mha"
	mhaPassword = "mha-lab"
)

// MHA is a real MHA 0.58 in a laboratory: its manager on one host, an sshd on each node with a server.
type MHA struct {
	lab    *Lab
	mgr    *Host
	socket string // of the daemon on the manager's host
	dir    string
	sshds  []*Process
}

// mhaPatches make Debian's MHA 0.58 run here, on a private copy of its Perl modules. Each names a file, what is replaced
// and by what.
var mhaPatches = []struct{ file, old, new string }{
	// Perl 5.22 and later take the numbers of a version that the format does not use for an error.
	{"NodeUtil.pm", `sprintf( '%03d%03d%03d', $str =~ m/(\d+)/g )`, `sprintf( '%03d%03d%03d', ( $str =~ m/(\d+)/g )[ 0 .. 2 ] )`},
	{"NodeUtil.pm", `sprintf( '%03d%03d', $str =~ m/(\d+)/g )`, `sprintf( '%03d%03d', ( $str =~ m/(\d+)/g )[ 0 .. 1 ] )`},
	// MariaDB has no super_read_only, and asking for it ends the script.
	{"SlaveUtil.pm", `$dbh->prepare("SELECT \@\@global.super_read_only as Value")`, `$dbh->prepare("SELECT 0 as Value")`},
}

// FollowPrimary makes the servers, which must run, replicas of one of them, read-only, instead of a ring.
func (l *Lab) FollowPrimary(ctx context.Context, primary string) error {
	statements := []string{"STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0",
		fmt.Sprintf("CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s'", mhaUser, mhaPassword),
		fmt.Sprintf("GRANT ALL ON *.* TO '%s'@'%%' WITH GRANT OPTION", mhaUser)}
	if err := l.Node(primary).execAll(ctx, statements); err != nil {
		return err
	}
	for _, n := range l.Servers() {
		if n.Name == primary {
			continue
		}
		if err := n.Replicate(ctx, primary); err != nil {
			return err
		}
	}
	return nil
}

// JoinRing makes the servers, which must run, a ring again, in which all are writable.
func (l *Lab) JoinRing(ctx context.Context) error {
	for _, n := range l.Servers() {
		if err := n.execAll(ctx, []string{"STOP SLAVE", "SET GLOBAL read_only = 0"}); err != nil {
			return err
		}
	}
	return l.ring(ctx)
}

// Replicate makes the node's server a read-only replica of another node's, by its position, and waits until it runs.
func (n *Node) Replicate(ctx context.Context, source string) error {
	statements := append([]string{"STOP SLAVE", "SET GLOBAL read_only = 1"}, n.lab.opts.Server.Follow(n.lab.Node(source).serverSpec())...)
	if err := n.execAll(ctx, statements); err != nil {
		return err
	}
	return n.WaitReplicating(ctx)
}

// ReplicaStatus returns MariaDB's replica status of the node's server, by column name.
func (n *Node) ReplicaStatus(ctx context.Context) (map[string]string, error) {
	db, err := n.Admin()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return queryRow(ctx, db, "SHOW SLAVE STATUS")
}

// LaunchServers prepares and starts all servers, which do not replicate.
func (l *Lab) LaunchServers(ctx context.Context) error {
	for _, n := range l.Servers() {
		if err := n.prepareServer(ctx); err != nil {
			return err
		}
	}
	return each(l.Servers(), func(n *Node) error { return n.StartServer(ctx) })
}

// NewMHA prepares MHA with its manager on a host and starts the sshd of each node with a server, in the node's namespace,
// with keys of its own. hooks are lines of app1.cnf that name scripts.
func (l *Lab) NewMHA(ctx context.Context, manager string, hooks map[string]string) (*MHA, error) {
	host, err := l.host(manager)
	if err != nil {
		return nil, fmt.Errorf("prepare MHA: %w", err)
	}
	m := &MHA{lab: l, mgr: host, dir: filepath.Join(l.dir, "mha")}
	for _, n := range l.nodes {
		if n.Host == host {
			m.socket = n.SocketPath()
		}
	}
	if err := errors.Join(os.Mkdir(m.dir, 0o755), os.MkdirAll("/run/sshd", 0o755)); err != nil {
		return nil, fmt.Errorf("prepare MHA: %w", err)
	}
	if err := m.patch(ctx); err != nil {
		return nil, fmt.Errorf("prepare MHA: %w", err)
	}
	if err := m.linkClients(); err != nil {
		return nil, fmt.Errorf("prepare MHA: %w", err)
	}
	if err := m.startSSH(ctx); err != nil {
		return nil, fmt.Errorf("prepare MHA: %w", err)
	}
	if err := m.WriteConfig(hooks); err != nil {
		return nil, err
	}
	return m, nil
}

// Close ends the sshds and removes MHA's files. What MHA has started must have ended.
func (m *MHA) Close() error {
	var errs []error
	for _, p := range m.sshds {
		errs = append(errs, p.Stop(5*time.Second))
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}

func (m *MHA) at(name ...string) string { return filepath.Join(append([]string{m.dir}, name...)...) }

// patch copies the Perl modules that Debian installed and patches the copy.
func (m *MHA) patch(ctx context.Context) error {
	const installed = "/usr/share/perl5/MHA"
	if !exists(installed) {
		return errors.New("find " + installed + ": install mha4mysql-manager and mha4mysql-node (deploy/deps.sh does)")
	}
	if err := os.Mkdir(m.at("perl"), 0o755); err != nil {
		return err
	}
	if err := run(ctx, "", "cp", "-a", installed, m.at("perl", "MHA")); err != nil {
		return err
	}
	for _, p := range mhaPatches {
		file := m.at("perl", "MHA", p.file)
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !bytes.Contains(b, []byte(p.old)) {
			return fmt.Errorf("patch %s: %q is not in it, so this is not MHA 0.58", p.file, p.old)
		}
		if err := os.WriteFile(file, bytes.Replace(b, []byte(p.old), []byte(p.new), 1), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// linkClients gives MariaDB's programs the names by which MHA calls them.
func (m *MHA) linkClients() error {
	if err := os.Mkdir(m.at("bin"), 0o755); err != nil {
		return err
	}
	for name, program := range map[string]string{"mysql": "mariadb", "mysqlbinlog": "mariadb-binlog"} {
		path, err := exec.LookPath(program)
		if err != nil {
			return fmt.Errorf("find %s: %w: install mariadb-client (deploy/deps.sh does)", program, err)
		}
		if err := os.Symlink(path, m.at("bin", name)); err != nil {
			return err
		}
	}
	return nil
}

// sshdConfig is the configuration of a node's sshd. The environment lets the scripts that MHA runs there find the patched
// modules.
const sshdConfig = `ListenAddress %[1]v:22
HostKey %[2]s
PidFile none
AuthorizedKeysFile %[3]s
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
MaxStartups 100
SetEnv PERL5LIB=%[4]s
`

func (m *MHA) startSSH(ctx context.Context) error {
	keygen := func(file string) error {
		return run(ctx, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file)
	}
	if err := keygen(m.at("id")); err != nil {
		return err
	}
	for _, n := range m.lab.Servers() {
		key, config := m.at("host-"+n.Name), m.at("sshd-"+n.Name+".conf")
		text := fmt.Sprintf(sshdConfig, n.Addr, key, m.at("id.pub"), m.at("perl"))
		if err := errors.Join(keygen(key), os.WriteFile(config, []byte(text), 0o600)); err != nil {
			return err
		}
		p, err := startProcess(n.NS, "sshd on "+n.Name, m.at("sshd-"+n.Name+".log"), exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", config))
		if err != nil {
			return err
		}
		m.sshds = append(m.sshds, p)
		if err := m.lab.record.addProcess(p); err != nil {
			return err
		}
	}
	return nil
}

// WriteConfig writes app1.cnf with the given hooks.
func (m *MHA) WriteConfig(hooks map[string]string) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("[server default]\nuser=%s\npassword=%s\nrepl_user=%s\nrepl_password=%s", mhaUser, mhaPassword, replicaUser, replicaPassword)
	line("ssh_user=root\nssh_options=-i %s -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR -o BatchMode=yes", m.at("id"))
	line("client_bindir=%s", m.at("bin"))
	line("ping_interval=1\nmanager_workdir=%s\nmanager_log=%s\nremote_workdir=%s", m.at("work"), m.LogPath(), m.at("remote"))
	for name, script := range hooks {
		line("%s=%s", name, script)
	}
	for i, n := range m.lab.Servers() {
		line("\n[server%d]\nhostname=%v\nmaster_binlog_dir=%s", i+1, n.Addr, filepath.Join(n.serverSpec().Dir, "data"))
	}
	if err := os.WriteFile(m.ConfigPath(), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write app1.cnf: %w", err)
	}
	return errors.Join(os.MkdirAll(m.at("work"), 0o755), os.MkdirAll(m.at("remote"), 0o755))
}

// ConfigPath returns the path of app1.cnf.
func (m *MHA) ConfigPath() string { return m.at("app1.cnf") }

// Account returns MHA's account at the servers, and the file with its password.
func (m *MHA) Account() (user, passwordFile string, err error) {
	file := m.at("password")
	if err := os.WriteFile(file, []byte(mhaPassword+"\n"), 0o600); err != nil {
		return "", "", fmt.Errorf("write MHA's password: %w", err)
	}
	return mhaUser, file, nil
}

// LogPath returns the path of the manager's log.
func (m *MHA) LogPath() string { return m.at("manager.log") }

// Forget removes what MHA has written down about earlier failovers, which would make it refuse the next one.
func (m *MHA) Forget() error {
	files, err := filepath.Glob(m.at("work", "*"))
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// Start starts one of MHA's commands on the manager's node; its output is appended to the file NAME.out.
func (m *MHA) Start(name string, args ...string) (*Process, error) {
	cmd := exec.Command(name, append([]string{"--conf=" + m.ConfigPath()}, args...)...)
	cmd.Env = append(os.Environ(), "PERL5LIB="+m.at("perl"))
	if m.socket != "" {
		cmd.Env = append(cmd.Env, "REMORA_SOCKET="+m.socket)
	}
	m.lab.Note(m.mgr.Name, "MHA: "+name+" "+strings.Join(args, " "))
	p, err := startProcess(m.mgr.NS, name, m.at(name+".out"), cmd)
	if err != nil {
		return nil, err
	}
	return p, m.lab.record.addProcess(p)
}

// Run runs one of MHA's commands to its end and returns its exit code.
func (m *MHA) Run(ctx context.Context, name string, args ...string) (int, error) {
	p, err := m.Start(name, args...)
	if err != nil {
		return 0, err
	}
	if err := p.Wait(ctx); err != nil {
		return 0, errors.Join(err, p.Kill())
	}
	return p.ExitCode(), nil
}

// Output returns what a command has printed so far, and the manager's log.
func (m *MHA) Output(name string) string {
	var text string
	for _, file := range []string{m.at(name + ".out"), m.LogPath()} {
		if b, err := os.ReadFile(file); err == nil {
			text += string(b)
		}
	}
	return text
}

// WaitWatching waits until a manager that was started pings the primary.
func (m *MHA) WaitWatching(ctx context.Context, p *Process) error {
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		if !p.Running() {
			return false, fmt.Errorf("it ended with status %d: %s", p.ExitCode(), m.Output("masterha_manager"))
		}
		files, err := filepath.Glob(m.at("work", "*.master_status.health"))
		if err != nil || len(files) == 0 {
			return false, err
		}
		b, err := os.ReadFile(files[0])
		return err == nil && bytes.Contains(b, []byte("PING_OK")), nil
	})
	if err != nil {
		return fmt.Errorf("wait until MHA watches: %w", err)
	}
	return nil
}

// WaitUnowned waits until the node's daemon says that nobody owns the group.
func (n *Node) WaitUnowned(ctx context.Context) error {
	err := poll(ctx, 5*time.Millisecond, func() (bool, error) {
		s, err := n.Status(ctx)
		return err == nil && s.Owner() == "", nil
	})
	if err != nil {
		return fmt.Errorf("wait until nobody owns the group: %w", err)
	}
	return nil
}

// LinkRemora makes a symbolic link to the daemon's binary, as people do for hooks.
func (n *Node) LinkRemora(path string) error {
	if err := os.Symlink(n.lab.opts.Remora, path); err != nil {
		return fmt.Errorf("link the binary: %w", err)
	}
	return nil
}
