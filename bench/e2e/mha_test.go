package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// mhaRig is three nodes with a primary and two read-only replicas, a witness with a real MHA 0.58 on it, and Remora's hooks
// in app1.cnf.
type mhaRig struct {
	*testing.T
	*lab.Lab
	mha *lab.MHA
}

// hookNames are the scripts of app1.cnf and the commands that take their places.
var hookNames = map[string]string{"master_ip_failover_script": "failover", "master_ip_online_change_script": "online-change",
	"secondary_check_script": "secondary-check", "shutdown_script": "shutdown", "report_script": "report"}

// raiseMHA raises the laboratory with keys of the table [mha]. Remora's account has what 'remora mysql grants --mha' prints.
func raiseMHA(t *testing.T, keys string, change ...func(*lab.Options)) *mhaRig {
	l := raise(t, func(o *lab.Options) {
		o.Nodes = []lab.NodeOptions{{Name: "db1"}, {Name: "db2"}, {Name: "db3"}, {Name: "mgr", Witness: true}}
		o.Policy = "follow"
		o.ExtraConfig = "[mha]\n" + keys
		for _, f := range change {
			f(o)
		}
	})
	ctx := within(t)
	must(t, l.LaunchServers(ctx))
	must(t, l.FollowPrimary(ctx, "db1"))
	grants, err := l.Node("mgr").Remora(ctx, "mysql", "grants", "--mha", "--family", "mariadb", "--host", "%")
	must(t, err)
	must(t, l.Node("db1").Exec(ctx, strings.TrimSuffix(strings.TrimSpace(string(grants)), ";")))
	for _, n := range l.Servers() {
		eventually(t, "the grants have come to "+n.Name, func() bool {
			return strings.Contains(ask(t, n, "SHOW GRANTS FOR "+lab.MonitorUser+"@'%'"), "READ_ONLY ADMIN")
		})
	}
	must(t, l.StartDaemons())
	_, err = l.WaitOwner(ctx, "db1")
	must(t, err)
	hooks := map[string]string{}
	for script, command := range hookNames {
		hooks[script] = fmt.Sprintf("%s mha %s --app_vip=%v --interface=eth0", binary, command, l.VIP())
	}
	m, err := l.NewMHA(ctx, "mgr", hooks)
	must(t, err)
	r := &mhaRig{t, l, m}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"masterha_check_repl", "masterha_manager", "masterha_master_switch"} {
				t.Logf("%s and the manager's log:\n%s", name, tail(m.Output(name)))
			}
		}
	})
	return r
}

func tail(s string) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// masterha runs one of MHA's commands, which must end with 0.
func (r *mhaRig) masterha(name string, args ...string) {
	r.Helper()
	r.Logf("%s %s", name, strings.Join(args, " "))
	ctx, cancel := context.WithTimeout(r.Context(), 90*time.Second)
	defer cancel()
	code, err := r.mha.Run(ctx, name, args...)
	must(r.T, err)
	if code != 0 {
		r.Fatalf("%s %v ended with %d", name, args, code)
	}
}

// serves waits until a node holds the address and its server takes writes.
func (r *mhaRig) serves(node string) {
	r.Helper()
	if _, err := r.WaitOwner(within(r.T), node); err != nil {
		r.Fatal(err)
	}
	eventually(r.T, node+" is writable", func() bool { return !r.readOnly(node) })
	neverTwo(r.T, r.Lab)
}

func (r *mhaRig) readOnly(node string) bool {
	db, err := r.Node(node).Admin()
	must(r.T, err)
	defer db.Close()
	var on bool
	must(r.T, db.QueryRow("SELECT @@global.read_only").Scan(&on))
	return on
}

// address returns how app1.cnf names a node.
func (r *mhaRig) address(node string) string { return r.Node(node).Addr.String() }

// TestMHASwitches: masterha_check_repl accepts the hooks, and planned changes with and without
// --orig_master_is_new_slave move the address; then a primary that has died is replaced by hand.
func TestMHASwitches(t *testing.T) {
	besides(t)
	r := raiseMHA(t, "wait = \"5s\"", unhurried)
	r.masterha("masterha_check_repl")

	alive := []string{"--master_state=alive", "--interactive=0"}
	r.masterha("masterha_master_switch", append(alive, "--new_master_host="+r.address("db2"), "--orig_master_is_new_slave")...)
	r.serves("db2")
	r.masterha("masterha_master_switch", append(alive, "--new_master_host="+r.address("db1"))...)
	r.serves("db1")
	if !r.readOnly("db2") {
		t.Error("the old primary is still writable")
	}
	must(t, r.Node("db2").Replicate(within(t), "db1"))

	must(t, r.Node("db1").KillServer())
	must(t, r.mha.Forget())
	r.masterha("masterha_master_switch", "--master_state=dead", "--interactive=0", "--ignore_last_failover",
		"--dead_master_host="+r.address("db1"), "--dead_master_ip="+r.address("db1"), "--dead_master_port=3306", "--new_master_host="+r.address("db3"))
	r.serves("db3")
	out := r.mha.Output("masterha_master_switch")
	for _, want := range []string{"has given the address up, proven", "serves, seen on the link", "in epoch"} {
		if !strings.Contains(out, want) {
			t.Errorf("MHA's output lacks %q", want)
		}
	}
	if strings.Contains(out, "got exit code 10") || strings.Contains(out, "remora: master_ip_failover start: WARNING") {
		t.Error("a start was not plain")
	}
	eventually(t, "MHA's report is in the history", func() bool {
		h, err := r.Node("db2").Remora(within(t), "history")
		must(t, err)
		return strings.Contains(string(h), "MHA reports:")
	})
}

// TestMHAManager: masterha_manager fails over by itself when mysqld dies, and when the primary's node is cut off. After the
// cut node is back the address is on one node only.
func TestMHAManager(t *testing.T) {
	besides(t)
	r := raiseMHA(t, "wait = \"5s\"", unhurried)
	p, err := r.mha.Start("masterha_manager", "--ignore_last_failover")
	must(t, err)
	must(t, r.mha.WaitWatching(within(t), p))
	must(t, r.Node("db1").KillServer())
	r.failsOver(p, "db1")

	next := r.Holder(r.VIP())
	must(t, r.Node("db1").StartServer(within(t)))
	must(t, r.Node("db1").Replicate(within(t), next))
	must(t, r.mha.Forget())
	p, err = r.mha.Start("masterha_manager", "--ignore_last_failover")
	must(t, err)
	must(t, r.mha.WaitWatching(within(t), p))
	must(t, r.Drop(next, lab.Both))
	r.failsOver(p, next)
	must(t, r.HealAll())
	last := r.Holder(r.VIP())
	eventually(t, "the node that was cut off is back", func() bool {
		s, err := r.Node(last).Status(within(t))
		must(t, err)
		for _, n := range s.Nodes {
			if n.Name == next {
				return n.Reachable
			}
		}
		return false
	})
	if got := holders(t, r.Lab, r.VIP()); len(got) != 1 || got[0] != last {
		t.Errorf("after the cut node is back %v hold the address, want %s alone", got, last)
	}
	neverTwo(t, r.Lab)
}

// failsOver waits until the manager has moved the address away from a node and ended well.
func (r *mhaRig) failsOver(p *lab.Process, from string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Minute)
	defer cancel()
	must(r.T, p.Wait(ctx))
	if code := p.ExitCode(); code != 0 {
		r.Fatalf("masterha_manager ended with %d", code)
	}
	if now := r.Holder(r.VIP()); now == from || now == "" {
		r.Fatalf("after the failover %q holds the address", now)
	}
	r.serves(r.Holder(r.VIP()))
}

// TestMHAManagerDiesBetweenStopAndStart: nobody calls start after a stop. When the time is over the operation is withdrawn,
// and the address goes to a node that can write.
func TestMHAManagerDiesBetweenStopAndStart(t *testing.T) {
	besides(t)
	r := raiseMHA(t, "wait = \"5s\"", unhurried)
	must(t, r.Node("db1").KillServer())
	must(t, r.Node("mgr").WaitUnowned(within(t)))
	out, err := r.Node("mgr").Remora(within(t), "mha", "failover", "--command=stopssh", "--ssh_user=root",
		"--orig_master_host="+r.address("db1"), "--orig_master_ip="+r.address("db1"), "--orig_master_port=3306")
	if err != nil || !strings.Contains(string(out), "proven") {
		t.Fatalf("stop: %v: %s", err, out)
	}
	// The manager is gone. The old primary's server comes back, as the only one that takes writes.
	must(t, r.Node("db1").StartServer(within(t)))
	eventually(t, "the status says that the group waits", func() bool { return r.says("waits for MHA's start") })
	r.serves("db1")
	eventually(t, "the history says why", func() bool {
		h, err := r.Node("db2").Remora(within(t), "history")
		must(t, err)
		return strings.Contains(string(h), "no start came within 5s")
	})
}

// TestMHASwitchDiesBetweenStopAndStart: a real masterha_master_switch is killed between stop and start of a planned change, which
// leaves all servers read-only. As long as one of its locks is held nothing is undone; then the old primary gets the address
// back, and its server takes writes. The next change goes through, and the new primary is writable before its address comes.
func TestMHASwitchDiesBetweenStopAndStart(t *testing.T) {
	besides(t)
	r := raiseMHA(t, "wait = \"6s\"\ngraceful = true\ndrain = \"200ms\"\nclear_read_only = true", unhurried)
	table := lab.Schema + ".held"
	must(t, r.Node("db1").Exec(within(t), "CREATE TABLE "+table+" (i INT PRIMARY KEY)"))
	eventually(t, "the table is on db2", func() bool { return ask(t, r.Node("db2"), "SELECT COUNT(*) FROM "+table) == "0" })
	// Before start MHA waits until the new primary has applied everything, which this one can not.
	db, err := r.Node("db2").Admin()
	must(t, err)
	defer db.Close()
	hold, err := db.Conn(t.Context())
	must(t, err)
	_, err = hold.ExecContext(t.Context(), "LOCK TABLES "+table+" READ")
	must(t, err)
	must(t, r.Node("db1").Exec(within(t), "INSERT INTO "+table+" VALUES (1)"))

	alive := []string{"--master_state=alive", "--interactive=0", "--new_master_host=" + r.address("db2")}
	p, err := r.mha.Start("masterha_master_switch", alive...)
	must(t, err)
	must(t, r.Node("mgr").WaitUnowned(within(t)))
	if !r.readOnly("db1") {
		t.Error("the address is given up and the old primary takes writes")
	}
	eventually(t, "the status says where MHA is at work, and why nothing is undone", func() bool {
		return r.says("MHA acts") && r.says("It is not given back to db1") && r.says("MHA's failover lock is held on the server of db")
	})
	if !p.Running() {
		t.Fatal("MHA has ended by itself")
	}
	must(t, p.Kill())
	_, err = hold.ExecContext(t.Context(), "UNLOCK TABLES") // the server notices a dead client when it answers
	must(t, err)
	killed := time.Now()
	r.serves("db1")
	t.Logf("given back %v after MHA's end", time.Since(killed).Round(time.Millisecond))
	for _, name := range []string{"db2", "db3"} {
		if !r.readOnly(name) {
			t.Errorf("%s is writable", name)
		}
	}
	must(t, r.Node("db1").Exec(within(t), "INSERT INTO "+table+" VALUES (2)"))
	eventually(t, "the history says what was done and why", func() bool {
		h, err := r.Node("db2").Remora(within(t), "history")
		must(t, err)
		return strings.Contains(string(h), "given back, its server becomes writable again: no start came within 6s")
	})

	r.masterha("masterha_master_switch", append(alive, "--orig_master_is_new_slave")...)
	r.serves("db2")
	if !r.readOnly("db1") {
		t.Error("the old primary is still writable")
	}
	if log := r.log("db2"); !strings.Contains(log, "the local server is writable") || strings.Contains(log, "read_only was not cleared") {
		t.Error("the new primary's server was not made writable by its daemon")
	}
}

func (r *mhaRig) log(node string) string {
	b, err := os.ReadFile(r.Node(node).LogPath())
	must(r.T, err)
	return string(b)
}

func (r *mhaRig) says(text string) bool {
	out, err := r.Node("mgr").Remora(within(r.T), "status")
	must(r.T, err)
	return strings.Contains(string(out), text)
}

// TestPromoteWaitsForMHA: while MHA's failover lock is held on a replica, a dead primary of policy promote has no successor, and
// the status says why. It has one when the lock is gone.
func TestPromoteWaitsForMHA(t *testing.T) {
	besides(t)
	l := replicas(t, flavours()[0], "max_lost_transactions = 100000")
	old := l.Holder(l.VIP())
	db, err := others(l, old)[0].Admin()
	must(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(within(t), "DO GET_LOCK('MHA_Master_High_Availability_Failover', 0)")
	must(t, err)
	for _, n := range l.Nodes() {
		eventually(t, n.Name+" knows of the lock", func() bool { return tells(t, n, "MHA's failover lock is held on its server") })
	}
	must(t, l.Node(old).KillServer())
	eventually(t, "nobody is promoted, and the one that chooses says why", func() bool {
		return slices.ContainsFunc(l.Nodes(), func(n *lab.Node) bool { return tells(t, n, "Nobody is promoted: MHA's failover lock is held") })
	})
	if now := l.Holder(l.VIP()); now != "" {
		t.Errorf("%s serves although MHA acts", now)
	}
	must(t, db.Close())
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	following(t, l, next, old)
	neverTwo(t, l)
}

// tells reports whether a node's status has a problem with a text.
func tells(t *testing.T, n *lab.Node, text string) bool {
	t.Helper()
	s, err := n.Status(within(t))
	return err == nil && slices.ContainsFunc(s.Problems, func(p lab.Problem) bool { return strings.Contains(p.Text, text) })
}

// TestSecondaryCheckOfAHungServer: a mysqld that is stopped by SIGSTOP still accepts connections, and is called dead in less
// than a second.
func TestSecondaryCheckOfAHungServer(t *testing.T) {
	r := raiseMHA(t, "wait = \"5s\"")
	check := func() (string, error) {
		out, err := r.Node("mgr").Remora(within(t), "mha", "secondary-check", "--user=root", "--master_host="+r.address("db1"),
			"--master_ip="+r.address("db1"), "--master_port=3306", "--master_user=mha", "--master_password=p;(x", "--ping_type=SELECT")
		return string(out), err
	}
	if out, err := check(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a server that answers: %v: %s", err, out)
	}
	must(t, r.Node("db1").SignalServer(syscall.SIGSTOP))
	start := time.Now()
	out, err := check()
	if took := time.Since(start); err != nil || took >= time.Second {
		t.Errorf("a hung server was called dead after %v: %v: %s", took, err, out)
	}
	must(t, r.Node("db1").SignalServer(syscall.SIGCONT))
}

// TestHookByLinkRefusesAServingPrimary: a failover away from a primary that serves is refused, whoever asks.
func TestHookByLinkRefusesAServingPrimary(t *testing.T) {
	r := raiseMHA(t, "wait = \"5s\"")
	link := filepath.Join(r.Dir(), "master_ip_failover")
	must(t, r.Node("mgr").LinkRemora(link))
	out, err := r.Node("mgr").NS.Command(within(t), link, "stop", r.address("db1"), "--socket="+r.Node("mgr").SocketPath())
	if err == nil || !strings.Contains(string(out), "is alive and serves") {
		t.Errorf("%v: %s", err, out)
	}
	r.serves("db1")
	out, err = r.Node("mgr").NS.Command(within(t), link, "status", "--socket="+r.Node("mgr").SocketPath())
	if err != nil || !strings.Contains(string(out), "status: ok") {
		t.Errorf("%v: %s", err, out)
	}
	// From a host without a daemon, with a hook's certificate, through any node.
	pki := filepath.Join(r.Dir(), "pki")
	_, err = r.Node("mgr").Remora(within(t), "pki", "issue", "far", "--hook", "--dir", pki)
	must(t, err)
	for _, n := range r.Nodes() {
		out, err = r.Client().NS.Command(within(t), link, "stop", r.address("db1"), fmt.Sprintf("--endpoint=%v:%d", n.Addr, lab.PeerPort),
			"--ca="+filepath.Join(pki, "ca.pem"), "--cert="+filepath.Join(pki, "far.pem"), "--key="+filepath.Join(pki, "far.key"))
		if err == nil || !strings.Contains(string(out), "is alive and serves") {
			t.Errorf("through %s: %v: %s", n.Name, err, out)
		}
	}
}
