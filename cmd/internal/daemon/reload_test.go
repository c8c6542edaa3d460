package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/pki"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/netio"
)

// TestWhatOnlyARestartChanges: a change that can not be taken over is refused by its key, and nothing else is.
func TestWhatOnlyARestartChanges(t *testing.T) {
	follow := strings.Replace(promoting, `policy = "promote"`, `policy = "follow"`, 1)
	acting := follow + "[mha]\nclear_read_only = true\n"
	const server = "[mysql] address, [[node]] mysql_address, mysql"
	for name, c := range map[string]struct {
		file, old, new string
		refused        string // its key, empty for none
	}{
		"the cluster":                        {promoting, "orders", "others", "cluster"},
		"the socket":                         {promoting, "[mysql]", "socket = \"/run/other.sock\"\n[mysql]", "socket"},
		"a path of the certificates":         {promoting, "node.pem", "other.pem", "[tls] paths"},
		"the profile":                        {promoting, "[mysql]", "profile = \"wan\"\n[mysql]", "[timing] or profile"},
		"the lease":                          {promoting, "[tls]", "[timing]\nttl = \"400ms\"\n[tls]", ""},
		"the interface":                      {promoting, "eth0", "eth1", "interface of group writer"},
		"whom the port is open to":           {promoting, "interface =", "fence_allow = [\"10.77.0.50\"]\ninterface =", "fence_port, fence_allow"},
		"what MHA may do":                    {follow, "[tls]", "[mha]\nwait = \"90s\"\ngraceful = true\n[tls]", ""},
		"a name for MHA":                     {follow, `address = "10.77.0.12:7400"`, "address = \"10.77.0.12:7400\"\naliases = [\"db2.example\"]", ""},
		"the account at the source":          {promoting, `user = "repl"`, `user = "other"`, ""},
		"the account":                        {promoting, "[mysql]", "[mysql]\nuser = \"other\"", ""},
		"the account's password":             {promoting, "[replication]", "password_file = \"/etc/remora/other\"\n[replication]", ""},
		"the server, where nobody acts":      {follow, "127.0.0.1:3307", "127.0.0.1:3308", ""},
		"the server of policy promote":       {promoting, "127.0.0.1:3307", "127.0.0.1:3308", server},
		"its address for the others":         {promoting, "10.88.0.11:3306", "10.88.0.11:3307", server},
		"the server that MHA has acted upon": {acting, "127.0.0.1:3307", "127.0.0.1:3308", server},
		"another node's server":              {promoting, `address = "10.77.0.12:7400"`, "address = \"10.77.0.12:7400\"\nmysql = \"10.88.0.12:3306\"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			next := strings.Replace(c.file, c.old, c.new, 1)
			err := fixed(load(t, c.file), load(t, next), "db1")
			switch {
			case c.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || strings.Count(err.Error(), `"`) != 2):
				t.Errorf("%v, want it refused for %s alone", err, c.refused)
			}
		})
	}
}

// reloadable is a daemon that has everything that a reload reaches, and whose server does not run.
func reloadable(t *testing.T, file string) *daemon {
	t.Helper()
	cfg, err := config.Load(file)
	must(t, err)
	self, _ := cfg.Node("db1")
	d := &daemon{opt: Options{Path: file, Self: self.NodeSpec, DryRun: true}, cfg: cfg, log: slog.New(slog.DiscardHandler), rewarm: make(chan struct{}, 1)}
	d.actor, err = newActor(cfg, "db1", d.log)
	must(t, err)
	late := &lateConsensus{}
	start := netio.Boottime()
	d.agent = agent.New(agent.Config{Self: "db1", Clock: netio.Boottime, Alarms: newAlarm, Consensus: late, Binder: dryRun{d.log}, Announcer: dryRun{d.log}, Logger: d.log,
		Machine: core.New(core.Options{Self: "db1", Incarnation: 1, Timing: cfg.Timing(), Start: start, Ready: start.Add(time.Hour)})})
	d.node, err = consensus.Open(consensus.Config{Self: "db1", Cluster: cfg.Cluster, Peers: cfg.Core().Nodes, StateDir: cfg.StateDir, Timing: cfg.Timing(),
		TLS: consensus.TLSFiles{CA: cfg.TLS.CA, Cert: cfg.TLS.Cert, Key: cfg.TLS.Key}, Ledger: core.NewLedger(), Incarnation: 1,
		Deliver: d.agent.Deliver, DeliverDatagram: d.agent.TryDeliver, Alarms: newAlarm, Logger: d.log})
	must(t, err)
	late.Node = d.node
	d.health = newHealth(d.opt.Self, d.agent.Deliver, d.log)
	d.health.current = d.health.watched(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		end, done := context.WithTimeout(context.Background(), closeTimeout)
		defer done()
		if err := d.node.Shutdown(end); err != nil {
			t.Error(err)
		}
	})
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReload: MHA's hooks know the nodes, names and groups that a file has brought, and acts on the server use its account. A
// file that is refused changes nothing.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	authority, file := pki.Dir(filepath.Join(dir, "pki")), filepath.Join(dir, "remora.toml")
	must(t, authority.Init("orders", time.Now()))
	must(t, authority.Issue("db1", "orders", time.Now()))
	ca, _ := authority.CAFiles()
	cert, key := authority.NodeFiles("db1")
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that nobody has
	must(t, err)
	at := l.Addr()
	must(t, l.Close())
	text := fmt.Sprintf(`cluster = "orders"
state_dir = "%s/state"
[mysql]
address = "127.0.0.1:1"
user = "before"
[tls]
ca = "%s"
cert = "%s"
key = "%s"
[[node]]
name = "db1"
address = "%s"
[[node]]
name = "mgr"
address = "127.0.0.20:7400"
witness = true
[[group]]
name = "writer"
role = "writer"
policy = "follow"
addresses = ["10.77.0.100/32"]
interface = "lo"
`, dir, ca, cert, key, at)
	must(t, os.WriteFile(file, []byte(text), 0o600))
	d := reloadable(t, file)
	hook := func(group, host string) control.AdviceResult {
		t.Helper()
		r, err := backend{d}.Advise(t.Context(), control.AdviceRequest{Command: "stop", Group: group, Old: control.DBServer{Host: host}, DryRun: true})
		must(t, err)
		return r
	}
	acts := func() string {
		_, err := d.actor.Transactions(t.Context(), time.Second)
		return fmt.Sprint(err)
	}
	if r := hook("orders", "db2.example"); r.Outcome != control.AdviceRefused {
		t.Errorf("a hook for a group that there is not: %+v", r)
	}
	if r := hook("writer", "db2.example"); r.Outcome != control.AdviceRefused {
		t.Errorf("a hook for a server that nobody knows: %+v", r)
	}
	if got := acts(); !strings.Contains(got, "as before:") {
		t.Errorf("before: %s", got)
	}

	next := strings.NewReplacer("cluster =", "version = 2\ncluster =", `user = "before"`, "user = \"after\"", "[[group]]", `[[node]]
name = "db2"
address = "127.0.0.2:7400"
aliases = ["db2.example"]
[mha]
wait = "90s"
graceful = true
[[group]]
name = "orders"
role = "writer"
policy = "follow"
addresses = ["10.77.0.101/32"]
interface = "lo"
[[group]]`).Replace(text)
	must(t, os.WriteFile(file, []byte(next), 0o600))
	must(t, d.reload())
	if r := hook("orders", "db2.example"); r.Outcome != control.AdviceOK || r.Node != "db2" {
		t.Errorf("a hook for what the reload has brought: %+v", r)
	}
	if got := acts(); !strings.Contains(got, "as after:") {
		t.Errorf("after: %s", got)
	}
	select {
	case cfg := <-d.health.restart:
		d.health.current = d.health.watched(cfg)
		if w := d.health.current; w.server.User != "after" || !w.advised {
			t.Errorf("watched is %+v", w)
		}
	default:
		t.Error("the server is watched as before")
	}
	select {
	case <-d.rewarm:
	default:
		t.Error("nobody looks whether connections are to be kept open")
	}

	must(t, d.reload())
	if len(d.rewarm) > 0 || len(d.health.restart) > 0 {
		t.Error("a reload of the same file disturbs the connections to the server")
	}

	must(t, os.WriteFile(file, []byte(strings.NewReplacer(`user = "after"`, `user = "never"`, dir+"/state", dir+"/other", "db2.example", "db3.example").Replace(next)), 0o600))
	if err := d.reload(); err == nil || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("another state_dir: %v", err)
	}
	if got := acts(); !strings.Contains(got, "as after:") || hook("orders", "db3.example").Outcome != control.AdviceRefused {
		t.Errorf("a file that is refused is in use: %s", got)
	}
}
