package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// All daemons start at once, or one after the other in any order: exactly one owner in the end.
func TestColdStart(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			l := raise(t, nil)
			must(t, l.StartServers(within(t)))
			must(t, l.PrepareDaemons())
			for i, n := range order {
				time.Sleep(time.Duration(i) * 150 * time.Millisecond) // apart by about half the start-up wait
				must(t, l.Nodes()[n].StartDaemon())
			}
			must(t, l.WaitStable(within(t)))
			if hs := holders(t, l, l.VIP()); len(hs) != 1 {
				t.Errorf("after the start the address is on %v", hs)
			}
			neverTwo(t, l)
		})
	}
}

// Each daemon is restarted once, the owner's last: the address is never without an owner for longer than a switchover
// takes, and what a daemon leaves of nftables is what others have there. On a machine that stands still for a moment a lease may
// run out all the same, so one of three rounds must do.
func TestRollingRestart(t *testing.T) {
	l := up(t, nil)
	for _, n := range l.Nodes() {
		nft(t, n, foreignTables)
	}
	const limit = 250 * time.Millisecond
	var longest time.Duration
	for range 3 {
		if longest = rollingRestart(t, l); longest <= limit {
			return
		}
	}
	t.Errorf("the address was bound nowhere for %v: that is not a switchover but a lease that ran out", longest)
}

// foreignTables are rules of others, one of them in a table of the fence's name in a family that the fence has nothing in.
const foreignTables = `add table inet other { set leases { type mark; timeout 1h; } ; chain in { type filter hook input priority 0; accept; } ; }
add table ip remora { chain in { type filter hook input priority 0; accept; } ; }`

// nft runs the tool that administrators use on a node.
func nft(t *testing.T, n *lab.Node, commands string) string {
	t.Helper()
	out, err := n.NS.Command(t.Context(), "nft", commands)
	must(t, err)
	return string(out)
}

// rollingRestart returns for how long the address was bound nowhere at a time.
func rollingRestart(t *testing.T, l *lab.Lab) time.Duration {
	t.Helper()
	owner := l.Holder(l.VIP())
	from := time.Now()
	for _, n := range append(others(l, owner), l.Node(owner)) {
		rules := func() string { return nft(t, n, "list table inet other") + nft(t, n, "list table ip remora") }
		foreign := rules()
		must(t, n.StopDaemon())
		if now := rules(); now != foreign {
			t.Errorf("the rules of others on %s were:\n%s\nSince the daemon's end they are:\n%s", n.Name, foreign, now)
		}
		for table := range strings.Lines(nft(t, n, "list tables")) {
			if strings.HasSuffix(table, " remora\n") && table != "table ip remora\n" {
				t.Errorf("%s was stopped in order and has left %s", n.Name, table)
			}
		}
		must(t, n.StartDaemon())
		must(t, l.WaitStable(within(t)))
	}
	neverTwo(t, l)
	events, err := l.AddrEvents()
	must(t, err)
	longest := time.Duration(0)
	hs := lab.Holdings(events, l.VIP())
	for i := 1; i < len(hs); i++ {
		if hs[i].From.After(from) {
			longest = max(longest, hs[i].From.Sub(hs[i-1].To))
		}
	}
	t.Logf("%d moves, the address was bound nowhere for at most %v at a time", len(hs)-1, longest)
	return longest
}

// The owner's daemon is killed and comes back at once: the address that it left behind goes before anything else.
func TestDaemonKilledAndRestarted(t *testing.T) {
	l := up(t, nil)
	old := l.Node(l.Holder(l.VIP()))
	must(t, old.KillDaemon())
	if hs := holders(t, l, l.VIP()); len(hs) != 1 || hs[0] != old.Name {
		t.Fatalf("the killed daemon can not have unbound the address, but it is on %v", hs)
	}
	must(t, old.StartDaemon())
	eventually(t, old.Name+" has removed what it found", func() bool { return logged(t, old, "left behind", l.VIP().String()) })
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
	if hs := holders(t, l, l.VIP()); len(hs) != 1 {
		t.Errorf("the address is on %v", hs)
	}
}

// Somebody removes the address behind the daemon's back: it is back and announced at once.
func TestAddressDeletedBehindBack(t *testing.T) {
	l := up(t, nil)
	owner := l.Node(l.Holder(l.VIP()))
	from := time.Now()
	_, err := owner.NS.Command(t.Context(), "ip", "addr", "del", l.VIP().String()+"/32", "dev", lab.Interface)
	must(t, err)
	eventually(t, "the address is back", func() bool {
		hs := holders(t, l, l.VIP())
		return len(hs) == 1 && hs[0] == owner.Name
	})
	announced(t, l, owner.Name, from)
	events, err := l.AddrEvents()
	must(t, err)
	gone := lab.Unowned(events, l.VIP(), from, time.Now())
	t.Logf("the address was away for %v", gone)
	if gone > 100*time.Millisecond {
		t.Errorf("the address was away for %v", gone)
	}
	neverTwo(t, l)
}

// An address that somebody has bound by hand before the first grant is adopted where it is.
func TestHandBoundIsAdopted(t *testing.T) {
	l := raise(t, nil)
	must(t, l.StartServers(within(t)))
	_, err := l.Node("db3").NS.Command(t.Context(), "ip", "addr", "add", l.VIP().String()+"/32", "dev", lab.Interface)
	must(t, err)
	must(t, l.StartDaemons())
	must(t, l.WaitStable(within(t)))
	if hs := holders(t, l, l.VIP()); len(hs) != 1 || hs[0] != "db3" {
		t.Errorf("the address was bound on db3 by hand, now it is on %v", hs)
	}
	neverTwo(t, l)
}

// A paused group stays where it is while its server is restarted.
func TestPause(t *testing.T) {
	l := up(t, nil)
	owner := l.Node(l.Holder(l.VIP()))
	_, err := owner.Remora(within(t), "pause", lab.Group)
	must(t, err)
	must(t, owner.StopServer())
	eventually(t, "the daemon has seen that the server is down", func() bool {
		s, err := owner.Status(within(t))
		must(t, err)
		for _, n := range s.Nodes {
			if n.Name == owner.Name {
				return n.MySQL != nil && n.MySQL.Health == "failed"
			}
		}
		return false
	})
	must(t, owner.StartServer(within(t)))
	if now := l.Holder(l.VIP()); now != owner.Name {
		t.Errorf("a paused group went from %s to %q", owner.Name, now)
	}
	_, err = l.Nodes()[0].Remora(within(t), "resume", lab.Group)
	must(t, err)
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}

// With --dry-run everything is said and nothing is done.
func TestDryRun(t *testing.T) {
	l := raise(t, nil)
	must(t, l.StartServers(within(t)))
	must(t, l.PrepareDaemons())
	for _, n := range l.Nodes() {
		must(t, n.StartDaemon("--dry-run"))
	}
	eventually(t, "one of them says that it would bind and announce", func() bool {
		for _, n := range l.Nodes() {
			if logged(t, n, "would bind", l.VIP().String()) && logged(t, n, "would announce") {
				return true
			}
		}
		return false
	})
	events, err := l.AddrEvents()
	must(t, err)
	if hs := lab.Holdings(events, l.VIP()); len(hs) > 0 {
		t.Errorf("a dry run bound the address: %v", hs)
	}
	frames, err := l.ARPFrames()
	must(t, err)
	for _, f := range frames {
		if f.SenderIP == l.VIP() {
			t.Errorf("a dry run sent a frame for the address: %+v", f)
		}
	}
}

// A node that was reinstalled has an empty state directory: it joins under its name and votes again.
func TestReinstalled(t *testing.T) {
	l := up(t, nil)
	n := others(l, l.Holder(l.VIP()))[0]
	must(t, n.KillDaemon())
	must(t, os.RemoveAll(n.StateDir()))
	must(t, os.MkdirAll(n.StateDir(), 0o700))
	must(t, n.StartDaemon())
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}

// SIGHUP takes over a file with a higher version, and refuses one that changes what only a restart can.
func TestReload(t *testing.T) {
	l := up(t, nil)
	const second = "10.77.0.101"
	rewrite := func(n *lab.Node, old, new string) {
		b, err := os.ReadFile(n.ConfigPath())
		must(t, err)
		if !strings.Contains(string(b), old) {
			t.Fatalf("the file has no %q:\n%s", old, b)
		}
		must(t, os.WriteFile(n.ConfigPath(), []byte(strings.Replace(string(b), old, new, 1)), 0o644))
	}
	for _, n := range l.Nodes() {
		rewrite(n, "cluster =", "version = 2\ncluster =")
		rewrite(n, fmt.Sprintf("%q]", l.VIP().String()+"/32"), fmt.Sprintf("%q, \"%s/32\"]", l.VIP().String()+"/32", second))
		must(t, n.SignalDaemon(syscall.SIGHUP))
	}
	eventually(t, "the new address is bound beside the old one", func() bool {
		owner := l.Holder(l.VIP())
		if owner == "" {
			return false
		}
		out, err := l.Node(owner).NS.Command(t.Context(), "ip", "-o", "addr")
		must(t, err)
		return strings.Contains(string(out), second) && strings.Contains(string(out), l.VIP().String())
	})
	n := l.Nodes()[0]
	rewrite(n, "state_dir = ", "# before\nstate_dir = "+fmt.Sprintf("%q", filepath.Join(t.TempDir(), "other"))+"\n# ")
	must(t, n.SignalDaemon(syscall.SIGHUP))
	eventually(t, "the change of state_dir is refused", func() bool { return logged(t, n, "not taken over", "state_dir") })
	must(t, l.WaitStable(within(t)))
	neverTwo(t, l)
}

// Policy follow: the address is where the server is writable. While none is it stays, and status counts down; when that is over
// it goes.
func TestFollow(t *testing.T) {
	l := raise(t, func(o *lab.Options) {
		o.Policy, o.ExtraConfig = "follow", "keep_unwritable = \"3s\""
		unhurried(o)
	})
	must(t, l.StartServers(within(t)))
	readOnly := func(n *lab.Node, on string) {
		db, err := n.Admin()
		must(t, err)
		defer db.Close()
		_, err = db.ExecContext(within(t), "SET GLOBAL read_only = "+on)
		must(t, err)
	}
	for _, n := range l.Servers() {
		if n.Name != "db2" {
			readOnly(n, "ON")
		}
	}
	must(t, l.StartDaemons())
	_, err := l.WaitOwner(within(t), "db2")
	must(t, err)
	began := time.Now()
	readOnly(l.Node("db2"), "ON")
	said := func() bool {
		return tells(t, l.Node("db1"), "(keep_unwritable), unless a server becomes writable before")
	}
	eventually(t, "the status counts down", said)
	readOnly(l.Node("db3"), "OFF")
	_, err = l.WaitOwner(within(t), "db3")
	must(t, err)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the address came to db3 after %v, not before the limit", took)
	}
	began = time.Now()
	readOnly(l.Node("db3"), "ON")
	eventually(t, "the status counts down", said)
	eventually(t, "nobody has the address", func() bool { return len(holders(t, l, l.VIP())) == 0 })
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("the address was released after %v, and the limit is 3s", took)
	}
	readOnly(l.Node("db1"), "OFF")
	_, err = l.WaitOwner(within(t), "db1")
	must(t, err)
	neverTwo(t, l)
}

// nobody is a user without rights.
const nobody = 65534

// giveAway makes a directory of the laboratory another user's, who may get there, with all that is in it.
func giveAway(t *testing.T, dir string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}))
	for up := filepath.Dir(dir); strings.HasPrefix(up, os.TempDir()+"/"); up = filepath.Dir(up) {
		must(t, os.Chmod(up, 0o755))
	}
}

// Two of three nodes are lost for good: the third gives up, is told to go on alone, and serves; the others join anew.
func TestRecover(t *testing.T) {
	l := up(t, nil)
	left := l.Nodes()[0]
	before, err := left.Status(within(t))
	must(t, err)
	for _, n := range others(l, left.Name) {
		must(t, n.KillDaemon())
		must(t, os.RemoveAll(n.StateDir()))
		must(t, os.MkdirAll(n.StateDir(), 0o700))
	}
	eventually(t, "the address is given up without a majority", func() bool {
		hs := holders(t, l, l.VIP())
		return len(hs) == 0 || len(hs) == 1 && hs[0] != left.Name
	})
	if _, err := left.Remora(within(t), "recover", "--config", left.ConfigPath(), "--node", left.Name, "--cluster", l.Name()); err == nil ||
		!strings.Contains(err.Error(), "stop the daemon") {
		t.Errorf("recovery beside a running daemon: %v", err)
	}
	must(t, left.StopDaemon())
	if _, err := left.Remora(within(t), "recover", "--config", left.ConfigPath(), "--node", left.Name, "--cluster", "other"); err == nil {
		t.Error("recovery of another cluster's name was not refused")
	}
	giveAway(t, left.StateDir())
	_, err = left.Remora(within(t), "recover", "--config", left.ConfigPath(), "--node", left.Name, "--cluster", l.Name())
	must(t, err)
	must(t, filepath.WalkDir(left.StateDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if fi, err := d.Info(); err != nil || fi.Sys().(*syscall.Stat_t).Uid != nobody {
			t.Errorf("root has recovered, and now %s is not the daemon's any more: %v", path, err)
		}
		return nil
	}))
	must(t, left.StartDaemon())
	_, err = l.WaitOwner(within(t), left.Name)
	must(t, err)
	after, err := left.Status(within(t))
	must(t, err)
	if a, b := after.Group(lab.Group).Epoch, before.Group(lab.Group).Epoch; a < b+1<<20 {
		t.Errorf("the epoch went from %d to %d, not up by 2^20", b, a)
	}
	for _, n := range others(l, left.Name) {
		must(t, n.StartDaemon())
	}
	must(t, l.WaitStable(within(t)))
}
