package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/trace"
)

// result is what a command leaves behind.
type result struct {
	code        int
	out, errOut string
}

func run(t *testing.T, env Env, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	env.Args, env.Stdout, env.Stderr, env.Version = args, &out, &errOut, "v0.1.0"
	if env.Getenv == nil {
		env.Getenv = func(string) string { return "" }
	}
	if env.Host == nil {
		env.Host = config.ThisHost()
	}
	code := Main(t.Context(), env)
	return result{code, out.String(), errOut.String()}
}

func (r result) expect(t *testing.T, what string, code int, out, errOut string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: exit code %d, want %d", what, r.code, code)
	}
	if !strings.Contains(r.out, out) || out == "" && r.out != "" {
		t.Errorf("%s: standard output\n%s\nwant %q", what, r.out, out)
	}
	if !strings.Contains(r.errOut, errOut) || errOut == "" && r.errOut != "" {
		t.Errorf("%s: standard error\n%s\nwant %q", what, r.errOut, errOut)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"stauts", "remora: unknown command \"stauts\" for \"remora\"\n\nDid you mean this?\n\tstatus\n\nSee 'remora --help'."},
		{"fly", "remora: unknown command \"fly\" for \"remora\"\nSee 'remora --help'."},
		{"config chek", `remora: unknown command "chek" for "remora config": did you mean "check"?`},
		{"config check", "remora: name the file to check, like 'remora config check /etc/remora/remora.toml'\nSee 'remora config check --help'."},
		{"pki sign", `remora: unknown command "sign" for "remora pki"`},
		{"pki init", "remora: name the cluster with --cluster NAME"},
		{"pki init --cluster Orders", `remora: --cluster: "Orders" is no valid name: use lower-case letters`},
		{"pki issue", "remora: name the node, like 'remora pki issue db1'"},
		{"pki issue ca", "remora: a node can not be called ca"},
		{"pki issue ../db1", `remora: node "../db1" is no valid name`},
		{"status --jsn", "remora: unknown flag: --jsn\nSee 'remora status --help'."},
		{"status writer", "remora: 'remora status' takes no arguments, but got \"writer\""},
		{"switchover", "remora: name the group to move, like 'remora switchover writer --to db2'"},
		{"switchover writer", "remora: name the node to move writer to with --to NODE"},
		{"switchover writer --to db2 --timeout 0s", "remora: --timeout 0s must be positive"},
		{"pause a b", "remora: name one group, or none for all"},
		{"history --limit -1", "remora: --limit -1 must not be negative"},
		{"run --log-level loud", `remora: --log-level "loud": use debug, info, warn or error`},
		{"run --log-format xml", `remora: --log-format "xml": use text or json`},
	} {
		run(t, Env{}, strings.Fields(c.args)...).expect(t, c.args, ExitUsage, "", c.want)
	}
}

// TestEveryCommandHasHelp reads the help of every command as a user would: it names the command and says something.
func TestEveryCommandHasHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || strings.Contains(c.UseLine(), "[flags]") {
			t.Errorf("%s: short help %q, usage %q", c.CommandPath(), c.Short, c.UseLine())
		}
		for _, line := range strings.Split(c.Long, "\n") {
			if len(line) > 120 {
				t.Errorf("%s: a line of its help is %d letters long: %s", c.CommandPath(), len(line), line)
			}
		}
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		want := c.CommandPath()
		if !c.Runnable() && !c.HasSubCommands() {
			want = c.Long // a help topic
		}
		run(t, Env{}, args...).expect(t, c.CommandPath(), ExitOK, want, "")
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(Env{Getenv: func(string) string { return "" }}))
}

func TestHelpOnExitCodes(t *testing.T) {
	for _, args := range [][]string{{"help", "exit-codes"}, {"exit-codes"}} {
		run(t, Env{}, args...).expect(t, "exit-codes", ExitOK, "3  The daemon can not be reached", "")
	}
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}} {
		run(t, Env{}, args...).expect(t, args[0], ExitOK, "remora v0.1.0 (go", "")
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		run(t, Env{}, "completion", shell).expect(t, shell, ExitOK, "remora", "")
	}
	run(t, Env{}, "__complete", "sw").expect(t, "sw<TAB>", ExitOK, "switchover\tMove a group", "ShellCompDirectiveNoFileComp")
}

func TestNoDaemon(t *testing.T) {
	for _, args := range []string{"status", "history", "switchover writer --to db2", "pause", "resume writer"} {
		run(t, Env{}, append(strings.Fields(args), "--socket", "/nonexistent/sock")...).
			expect(t, args, ExitUnreachable, "", "remora: the daemon can not be reached: nobody answers on socket /nonexistent/sock")
	}
}

// fake is a daemon with one group and as many problems as wanted.
type fake struct {
	problems []control.Problem
	err      error
	asked    []any
	checks   []control.PlanCheck
	stages   []control.Stage
}

func (f *fake) Status(context.Context) (control.Status, error) {
	return control.Status{Schema: control.Schema, Cluster: "orders", Node: "db1", Time: time.Unix(1_800_000_000, 0).UTC(), Quorum: true,
		Groups: []control.Group{{Name: "writer", Owner: "db1", Epoch: 8}},
		Nodes:  []control.Node{{Name: "db1"}, {Name: "db2"}, {Name: "mgr", Witness: true}}, Problems: f.problems}, f.err
}

func (f *fake) History(_ context.Context, req control.HistoryRequest) ([]control.HistoryEntry, error) {
	f.asked = append(f.asked, req)
	return []control.HistoryEntry{{Index: 12, Kind: "grant", Group: "writer", Epoch: 8, Node: "db1", Reason: "first"}}, f.err
}

func (f *fake) Trace(context.Context, control.TraceRequest) (control.TraceResult, error) {
	return control.TraceResult{Pieces: []trace.Piece{{Node: "mgr", Group: "writer", Epoch: 8, Marks: []trace.Mark{{Name: "proposed"}, {Name: "granted", US: 1500}}}}}, f.err
}

func (f *fake) Switchover(ctx context.Context, req control.SwitchoverRequest) (control.SwitchoverResult, error) {
	f.asked = append(f.asked, req)
	f.tell(ctx)
	return control.SwitchoverResult{Group: req.Group, From: "db1", To: req.To, Epoch: 9, TookMS: 7}, f.err
}

// tell tells the stages of an operation.
func (f *fake) tell(ctx context.Context) {
	for _, s := range f.stages {
		control.StagesOf(ctx)(s)
	}
}

func (f *fake) Pause(_ context.Context, req control.PauseRequest) error {
	f.asked = append(f.asked, req)
	return f.err
}

// serve lets a fake daemon listen on a socket and returns the environment of a user who has named it.
func serve(t *testing.T, f *fake) Env {
	t.Helper()
	return serveBackend(t, f)
}

func serveBackend(t *testing.T, f control.Backend) Env {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "remora.sock")
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- control.NewServer(f, nil).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return Env{Getenv: func(key string) string {
		if key == "REMORA_SOCKET" {
			return socket
		}
		return ""
	}}
}

func TestStatus(t *testing.T) {
	f := &fake{problems: []control.Problem{}}
	env := serve(t, f)
	run(t, env, "status").expect(t, "status", ExitOK, "writer  owner=db1 epoch=8", "")
	run(t, env, "status", "--check").expect(t, "status --check", ExitOK, "all is as it should be", "")
	f.problems = []control.Problem{{Subject: "node db2", Text: "Not heard for 3s."}}
	run(t, env, "status").expect(t, "status", ExitOK, "node db2: Not heard for 3s.", "")
	run(t, env, "status", "--check").expect(t, "status --check", ExitUnwell, "node db2: Not heard for 3s.", "")
	r := run(t, env, "status", "--json", "--check")
	var s control.Status
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.Schema != control.Schema || s.Groups[0].Epoch != 8 || r.code != ExitUnwell {
		t.Errorf("status --json: %d, %v, %+v", r.code, err, s)
	}
}

func TestHistory(t *testing.T) {
	env := serve(t, new(fake))
	run(t, env, "history", "--group", "writer").expect(t, "history", ExitOK, "grant  db1   first", "")
	run(t, env, "history", "--trace").expect(t, "history --trace", ExitOK, "  mgr: proposed, granted +1.50\n", "")
	run(t, env, "history", "--trace", "--json").expect(t, "history --trace --json", ExitOK, "\"trace\": {", "")
	run(t, env, "history", "--json").expect(t, "history --json", ExitOK, "{\n  \"schema\": 1,\n  \"entries\": [\n    {\n      \"index\": 12,", "")
}

func TestSwitchover(t *testing.T) {
	f := new(fake)
	env := serve(t, f)
	run(t, env, "switchover", "writer", "--to", "db2", "--reason", "new disk").
		expect(t, "switchover", ExitOK, "writer moved from db1 to db2 in 7 ms, epoch 9\n", "")
	req := f.asked[0].(control.SwitchoverRequest)
	if req.Group != "writer" || req.To != "db2" || !strings.HasPrefix(req.Reason, "new disk (") || req.Forwarded {
		t.Errorf("asked %+v", req)
	}
	f.err = control.Refusedf("db2 could not serve: MySQL is failed")
	run(t, env, "switchover", "writer", "--to", "db2").
		expect(t, "a switchover that is refused", ExitFailed, "", "remora: switchover of writer to db2 refused: db2 could not serve: MySQL is failed\n")
	f.err = errors.New("raft: no")
	run(t, env, "switchover", "writer", "--to", "db2").
		expect(t, "a switchover that fails", ExitFailed, "", "remora: switchover of writer to db2 failed: raft: no\n")
}

// The stages go to standard error, so that standard output is what it was.
func TestStagesArePrinted(t *testing.T) {
	f := &fake{stages: []control.Stage{{Text: "db1 becomes read-only", AtUS: 400}, {Text: "db2 serves", AtUS: 12_650}}}
	env := serve(t, f)
	const want = "      0.4 ms  db1 becomes read-only\n     12.7 ms  db2 serves (after 12.2 ms)\n"
	r := run(t, env, "switchover", "writer", "--to", "db2")
	r.expect(t, "switchover", ExitOK, "writer moved from db1 to db2 in 7 ms, epoch 9\n", want)
	if r.out != "writer moved from db1 to db2 in 7 ms, epoch 9\n" {
		t.Errorf("standard output is %q", r.out)
	}
	run(t, env, "promote", "writer", "--to", "db2").expect(t, "promote", ExitOK, "db2 is the primary of writer", want)
	f.err = control.Refusedf("db2 did not catch up")
	run(t, env, "switchover", "writer", "--to", "db2").
		expect(t, "a switchover that is aborted", ExitFailed, "", want+"remora: switchover of writer to db2 refused: db2 did not catch up\n")
}

func TestPauseAndResume(t *testing.T) {
	f := new(fake)
	env := serve(t, f)
	run(t, env, "pause", "writer").expect(t, "pause", ExitOK, "writer paused\n", "")
	run(t, env, "resume").expect(t, "resume", ExitOK, "all groups resumed\n", "")
	first, second := f.asked[0].(control.PauseRequest), f.asked[1].(control.PauseRequest)
	if first.Group != "writer" || !first.On || second.Group != "" || second.On || !strings.HasPrefix(first.Reason, "asked for by ") {
		t.Errorf("asked %+v and %+v", first, second)
	}
}

// TestCompletionAsksTheDaemon holds that names are completed from the cluster, and that a daemon that is not there leaves
// them out without a word.
func TestCompletionAsksTheDaemon(t *testing.T) {
	env := serve(t, new(fake))
	for _, args := range [][]string{{"switchover", ""}, {"pause", ""}, {"resume", "w"}, {"history", "--group", ""}} {
		r := run(t, env, append([]string{"__complete"}, args...)...)
		if !strings.HasPrefix(r.out, "writer\n:4") {
			t.Errorf("%v completes to %q", args, r.out)
		}
	}
	if r := run(t, env, "__complete", "switchover", "writer", "--to", ""); !strings.HasPrefix(r.out, "db2\n:4") {
		t.Errorf("--to completes to %q", r.out)
	}
	if r := run(t, Env{}, "__complete", "pause", "--socket", "/nonexistent/sock", ""); !strings.HasPrefix(r.out, ":4") {
		t.Errorf("without a daemon: %q", r.out)
	}
}

// TestPKI makes certificates as the first steps say, and a second time.
func TestPKI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	run(t, Env{}, "pki", "issue", "db1", "--dir", dir).
		expect(t, "issue too early", ExitFailed, "", "remora: there is no certificate authority in "+dir+": make one with 'remora pki init'")
	run(t, Env{}, "pki", "init", "--cluster", "orders", "--dir", dir).
		expect(t, "init", ExitOK, "next: remora pki issue NODE --dir "+dir, "")
	run(t, Env{}, "pki", "issue", "db1", "--dir", dir).expect(t, "issue", ExitOK, dir+"/db1.key  copy it to node db1", "")
	run(t, Env{}, "pki", "issue", "db1", "--dir", dir).expect(t, "issue again", ExitFailed, "", "db1.pem exists, and nothing is overwritten")
	run(t, Env{}, "pki", "init", "--cluster", "orders", "--dir", dir).expect(t, "init again", ExitFailed, "", "ca.pem exists, and nothing is overwritten")
	run(t, Env{}, "pki", "show", "--dir", dir).expect(t, "show", ExitOK, "db1.pem  db1", "")
}

// site is a machine that is ready to run node db1: files in a directory of the test, addresses that need not exist.
func site(t *testing.T, change func(string) string) (file string) {
	t.Helper()
	dir := t.TempDir()
	if r := run(t, Env{}, "pki", "init", "--cluster", "orders", "--dir", dir); r.code != ExitOK {
		t.Fatal(r.errOut)
	}
	if r := run(t, Env{}, "pki", "issue", "db1", "--dir", dir); r.code != ExitOK {
		t.Fatal(r.errOut)
	}
	text := config.Example()
	for _, r := range []struct{ from, to string }{
		{"/etc/remora/ca.pem", filepath.Join(dir, "ca.pem")},
		{"/etc/remora/node.pem", filepath.Join(dir, "db1.pem")},
		{"/etc/remora/node.key", filepath.Join(dir, "db1.key")},
		{"password_file = ", "#"},
		{`#state_dir = "/var/lib/remora"`, `state_dir = "` + dir + `"`},
		{`address = "127.0.0.1:3306"`, `address = "unix:` + dir + `/mysqld.sock"`},
		{`interface = "eth0"`, `interface = "lo"`},
	} {
		if !strings.Contains(text, r.from) {
			t.Fatalf("the example has no %s any more", r.from)
		}
		text = strings.ReplaceAll(text, r.from, r.to)
	}
	file = filepath.Join(dir, "remora.toml")
	if err := os.WriteFile(file, []byte(change(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func same(s string) string { return s }

func TestConfigCheck(t *testing.T) {
	file := site(t, same)
	run(t, Env{}, "config", "check", file, "--node", "db1").
		expect(t, "check", ExitOK, "ok: cluster orders, version 1, this machine is node db1\n", "")
	run(t, Env{}, "config", "check", file, "--node", "db9").
		expect(t, "check of an unknown node", ExitUsage, "", `there is no node "db9"`)
	run(t, Env{}, "config", "check", file, "--node", "db2").
		expect(t, "check with another node's certificate", ExitUsage, "", "is for db1 and not for node db2")
	bad := site(t, func(s string) string { return strings.ReplaceAll(s, "cluster =", "clutser =") })
	run(t, Env{}, "config", "check", bad, "--node", "db1").
		expect(t, "check of a bad file", ExitUsage, "", bad+":8: clutser: unknown key: did you mean \"cluster\"?\n")
	warn := site(t, func(s string) string { return strings.ReplaceAll(s, "10.77.0.100/32", "10.77.0.100/24") })
	run(t, Env{}, "config", "check", warn, "--node", "db1").
		expect(t, "check with a warning", ExitOK, "ok: cluster orders", "warning: [[group]] addresses: 10.77.0.100/24 adds a route")
}

func TestConfigExample(t *testing.T) {
	run(t, Env{}, "config", "example").expect(t, "example", ExitOK, config.Example(), "")
}

func TestMySQLGrants(t *testing.T) {
	run(t, Env{}, "mysql", "grants", "--family", "mariadb", "--policy", "promote").expect(t, "grants", ExitOK,
		"GRANT SLAVE MONITOR, RELOAD, PROCESS, REPLICATION SLAVE ADMIN, READ_ONLY ADMIN, CONNECTION ADMIN ON *.* TO 'remora'@'localhost';\n"+
			"GRANT REPLICATION SLAVE ON *.* TO 'repl'@'%';\n", "")
	run(t, Env{}, "mysql", "grants", "--family", "mysql80", "--host", "127.0.0.1").expect(t, "grants", ExitOK,
		"GRANT REPLICATION CLIENT ON *.* TO 'remora'@'127.0.0.1';\n", "")
	run(t, Env{}, "mysql", "grants", "--family", "mariadb", "--mha").expect(t, "grants", ExitOK,
		"GRANT SLAVE MONITOR, PROCESS, READ_ONLY ADMIN, CONNECTION ADMIN ON *.* TO 'remora'@'localhost';\n", "")
	run(t, Env{}, "mysql", "grants", "--family", "mysql80", "--kill").expect(t, "grants", ExitOK,
		"GRANT REPLICATION CLIENT, PROCESS, CONNECTION_ADMIN ON *.* TO 'remora'@'localhost';\n", "")
	run(t, Env{}, "mysql", "grants", "--family", "oracle").expect(t, "another family", ExitUsage, "", "mysql57, mysql80, mariadb104, mariadb")
	run(t, Env{}, "mysql", "grants", "--policy", "all").expect(t, "another policy", ExitUsage, "", "any, follow or promote")
}

func TestMySQLUseGTIDSaysWhyNot(t *testing.T) {
	file := site(t, func(s string) string { return strings.ReplaceAll(s, "unix:", "unix:/nonexistent") })
	run(t, Env{}, "mysql", "use-gtid", "--config", file, "--node", "db1").expect(t, "no server", ExitFailed, "", "db1 does not replicate by GTID: connect to the server")
	run(t, Env{}, "mysql", "use-gtid", "--config", "/nonexistent").expect(t, "no file", ExitUsage, "", "/nonexistent: can not be read")
}
