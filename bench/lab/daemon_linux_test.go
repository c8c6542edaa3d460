package lab

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// playDaemon is a daemon that logs what it was started with, from inside the node's namespace.
func playDaemon(args []string) int {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	config, node := fs.String("config", "", ""), fs.String("node", "", "")
	format := fs.String("log-format", "", "")
	if err := fs.Parse(args); err != nil || *format != "json" {
		return 2
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	_, err := os.ReadFile(*config)
	addrs, _ := net.InterfaceAddrs()
	log.Info("bound", "node", *node, "config", err == nil, "addresses", fmt.Sprint(addrs))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	log.Info("unbound")
	return 0
}

// playClient answers as the daemon's command line does.
func playClient(args []string) int {
	if args[0] != "status" {
		fmt.Fprintln(os.Stderr, "refused:", strings.Join(args, " "))
		return 1
	}
	json.NewEncoder(os.Stdout).Encode(Status{Node: filepath.Dir(os.Getenv("REMORA_SOCKET")), Quorum: true, Leader: "db2",
		Groups: []GroupStatus{{Name: Group, Owner: "db1", Epoch: 7}}})
	return 0
}

func TestDaemons(t *testing.T) {
	start := time.Now()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "mgr", Witness: true}}, Remora: self})
	if err := l.StartDaemons(); err != nil {
		t.Fatal(err)
	}
	db1 := l.Node("db1")
	said := func(node, what, detail string) func() bool {
		return func() bool {
			events, err := l.DaemonEvents(start, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Node == node && e.What == what && strings.Contains(e.Detail, detail) {
					return true
				}
			}
			return false
		}
	}
	eventually(t, "db1 in its namespace", said("db1", "bound", "10.77.0.11/24"))
	eventually(t, "mgr in its namespace", said("mgr", "bound", "10.77.0.20/24"))
	if !said("db1", "bound", "config=true")() || !said("mgr", "bound", "node=mgr")() {
		t.Error("a daemon was not given its configuration and name")
	}
	s, err := db1.Status(testContext(t))
	if err != nil || s.Node != db1.dir || s.Owner() != "db1" || s.Leader != "db2" {
		t.Errorf("status %+v, %v", s, err)
	}
	if err := l.Switchover(testContext(t), "db1"); err == nil || !strings.Contains(err.Error(), "refused: switchover writer --to db1") {
		t.Errorf("switchover: %v", err)
	}

	if err := db1.StartDaemon(); err == nil {
		t.Error("a second daemon was started")
	}
	if err := db1.SignalDaemon(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a frozen daemon", func() bool { st, err := readStat(db1.Daemon().Pid()); return err == nil && st.state == 'T' })
	if err := db1.SignalDaemon(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := db1.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an orderly end", said("db1", "unbound", ""))
	if err := l.Node("mgr").KillDaemon(); err != nil {
		t.Fatal(err)
	}
	if said("mgr", "unbound", "")() {
		t.Error("a killed daemon ended in order")
	}
	if err := db1.StartDaemon(); err != nil || !db1.Daemon().Running() {
		t.Errorf("starting again: %v", err)
	}
	if u, err := db1.Daemon().Usage(); err != nil || u.RSS == 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// TestPowerOff checks that a node without power holds nothing, and gets it back.
func TestPowerOff(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}, Remora: self})
	ctx := testContext(t)
	if err := l.StartDaemons(); err != nil {
		t.Fatal(err)
	}
	db1 := l.Node("db1")
	ip(t, db1.Host, "address add "+l.VIP().String()+"/32 dev eth0")
	ip(t, db1.Host, "address add fd77::100/128 dev lo nodad")
	eventually(t, "the address", func() bool { return l.Holder(l.VIP()) == "db1" })
	if err := db1.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if foreign, err := db1.ForeignAddrs(); err != nil || len(foreign) != 0 || db1.Daemon().Running() {
		t.Errorf("after the loss of power: addresses %v, daemon runs %v, %v", foreign, db1.Daemon().Running(), err)
	}
	eventually(t, "nobody holding the address", func() bool { return l.Holder(l.VIP()) == "" })
	if err := db1.PowerOn(ctx); err != nil || !db1.Daemon().Running() {
		t.Errorf("power on: %v", err)
	}
}
