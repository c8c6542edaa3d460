package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/core"
)

// TestWrongAdvice: each way in which advice can be wrong ends with the code that docs/mha.md gives for it and with the reason,
// and the address stays where it is.
func TestWrongAdvice(t *testing.T) {
	besides(t)
	r := raiseMHA(t, "wait = \"5s\"", unhurried)
	must(t, r.WaitStable(within(t)))
	wrong := func(what string, code int, text string, args ...string) {
		t.Helper()
		before, err := r.Node("db1").Status(within(t))
		must(t, err)
		out, err := r.Node("mgr").Remora(within(t), append([]string{"mha"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("exit status %d", code)) || !strings.Contains(string(out), text) {
			t.Errorf("%s: %v, want exit status %d and %q: %s", what, err, code, text, out)
		}
		after, err := r.Node("db1").Status(within(t))
		must(t, err)
		if before.Owner() != after.Owner() || before.Groups[0].Epoch != after.Groups[0].Epoch {
			t.Errorf("%s: %s owned it in epoch %d, now %s in %d", what, before.Owner(), before.Groups[0].Epoch, after.Owner(), after.Groups[0].Epoch)
		}
	}
	wrong("an unknown host", 1, "no node is called", "failover", "stop", "elsewhere.example")
	wrong("an unknown host as the target", 1, "no node is called", "failover", "start", "elsewhere.example")
	wrong("a host and the address of another", 1, "correct app1.cnf", "failover", "--command=stop", "--orig_master_host=db1", "--orig_master_ip="+r.address("db2"))
	wrong("a witness", 1, "is a witness", "failover", "stop", "mgr")
	wrong("a failover away from a primary that serves", 1, "is alive and serves", "failover", "stop", "db1")
	wrong("a stop of one that does not own it", 1, "the advice is too late", "online-change", "stop", "db2")
	wrong("a start without a stop", 1, "no stop has come before", "failover", "start", "db2")

	// A planned change is opened. Whom MHA can not mean gets nothing; one that merely can not take it now is no reason to abort.
	must(t, r.Node("db2").KillServer())
	if out, _, err := r.hook("stop", "db1", "db2"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wrong("a witness as the target", 1, "is a witness", "online-change", "start", "mgr")
	wrong("a target whose server is dead", 10, "WARNING: db2 can not take writer", "online-change", "start", "db2")
	wrong("a stop of another one meanwhile", 1, "is not followed by its start yet", "online-change", "stop", "db3")
	// No start comes: the old primary, which is writable, gets it back, and what comes then is too late.
	r.serves("db1")
	wrong("a start of an operation that is closed", 1, "the operation is closed", "online-change", "start", "db3")

	must(t, r.Drop("db2", lab.Both))
	must(t, r.Drop("db3", lab.Both))
	eventually(t, "the manager's node has no majority", func() bool {
		s, err := r.Node("mgr").Status(within(t))
		must(t, err)
		return !s.Quorum
	})
	wrong("a stop without a majority", 1, core.NotArbiter, "failover", "stop", "db1")
	wrong("a status without a majority", 1, "not in touch with a majority", "failover", "status")
	neverTwo(t, r.Lab)
}

// hook calls a hook on the manager's node as MHA does, and returns what it says and how long it takes.
func (r *mhaRig) hook(command, from, to string) (string, time.Duration, error) {
	start := time.Now()
	out, err := r.Node("mgr").Remora(within(r.T), "mha", "online-change", "--command="+command, "--orig_master_host="+r.address(from),
		"--new_master_host="+r.address(to))
	return strings.TrimSpace(string(out)), time.Since(start), err
}

// TestAStartIsSeenThoughANodeIsCutOff: a node that does not answer takes nothing from the others' word, whoever leads. The
// address goes to and fro, so that the new owner is the leader once.
func TestAStartIsSeenThoughANodeIsCutOff(t *testing.T) {
	r := raiseMHA(t, "wait = \"5s\"")
	must(t, r.WaitStable(within(t)))
	must(t, r.Drop("db2", lab.Both))
	eventually(t, "the others have a leader without it", func() bool {
		s, err := r.Node("mgr").Status(within(t))
		must(t, err)
		for _, n := range s.Nodes {
			if n.Name == "db2" && n.Reachable {
				return false
			}
		}
		return s.Quorum && s.Leader != "db2"
	})
	for _, move := range [][2]string{{"db1", "db3"}, {"db3", "db1"}} {
		for _, command := range []string{"stop", "start"} {
			out, took, err := r.hook(command, move[0], move[1])
			t.Logf("%v: %s", took, out)
			if err != nil || command == "start" && !strings.Contains(out, "seen on the link") {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
	neverTwo(t, r.Lab)
}

// TestReplicasGoBackToGTID: after MHA has repointed replicas by file and position the status says so, and remora mysql use-gtid
// has each go on by GTID, the former primary too.
func TestReplicasGoBackToGTID(t *testing.T) {
	besides(t)
	r := raiseMHA(t, "wait = \"5s\"", unhurried)
	must(t, r.WaitStable(within(t)))
	const sentence = "remora mysql use-gtid"
	if r.says(sentence) {
		t.Error("the status says that a replica by GTID is none")
	}
	r.masterha("masterha_master_switch", "--master_state=alive", "--interactive=0", "--new_master_host="+r.address("db2"), "--orig_master_is_new_slave")
	r.serves("db2")
	eventually(t, "the status says that db3 is by position", func() bool { return r.says("Using_Gtid: No") && r.says(sentence) })
	user, file, err := r.mha.Account()
	must(t, err)
	for _, n := range []string{"db1", "db3"} {
		if by := r.usingGTID(n); by != "No" {
			t.Fatalf("MHA has left %s with Using_Gtid: %s", n, by)
		}
		use := func() (string, error) {
			out, err := r.Node(n).Remora(within(t), "mysql", "use-gtid", "--config", r.Node(n).ConfigPath(), "--node", n, "--user", user, "--password-file", file)
			return string(out), err
		}
		out, err := use()
		t.Logf("%s", strings.TrimSpace(out))
		if err != nil || !strings.Contains(out, "by GTID, from") || r.usingGTID(n) != "Slave_Pos" {
			t.Errorf("%s, Using_Gtid: %s: %v", out, r.usingGTID(n), err)
		}
		must(t, r.Node(n).WaitReplicating(within(t)))
		if out, err := use(); err != nil || !strings.Contains(out, "by GTID already") {
			t.Errorf("again: %v: %s", err, out)
		}
	}
	eventually(t, "the status has nothing to say about it", func() bool { return !r.says(sentence) })
	r.serves("db2")
}

func (r *mhaRig) usingGTID(node string) string {
	r.Helper()
	status, err := r.Node(node).ReplicaStatus(within(r.T))
	must(r.T, err)
	return status["Using_Gtid"]
}

// TestHooksRunNothing: no hook, and no daemon for it, runs another program, starts a process that could outlive it, or takes
// anything from standard input, from which MHA reads its own answers.
func TestHooksRunNothing(t *testing.T) {
	r := raiseMHA(t, "wait = \"5s\"")
	must(t, r.WaitStable(within(t)))
	ran := traceDaemons(t, r.Lab)
	old, next := r.address("db1"), r.address("db2")
	for i, args := range [][]string{
		{"failover", "--command=status", "--ssh_user=root", "--orig_master_host=" + old, "--orig_master_ip=" + old, "--orig_master_port=3306"},
		{"secondary-check", "--user=root", "--master_host=" + old, "--master_ip=" + old, "--master_port=3306", "--master_user=mha", "--ping_type=SELECT"},
		{"online-change", "--command=stop", "--orig_master_host=" + old, "--new_master_host=" + next},
		{"online-change", "--command=start", "--orig_master_host=" + old, "--new_master_host=" + next},
		{"shutdown", "--command=stopssh", "--ssh_user=root", "--host=" + old, "--ip=" + old, "--port=3306"},
		{"report", "--orig_master_host=" + old, "--new_master_host=" + next, "--new_slave_hosts=", "--conf=app1.cnf", "--subject=done", "--body=done"},
		{"failover", "stop", "elsewhere.example"},
	} {
		r.runsNothing(filepath.Join(r.Dir(), fmt.Sprintf("hook-%d", i)), args)
	}
	if b := ran(); len(b) > 0 {
		t.Errorf("a daemon ran another program for a hook:\n%s", b)
	}
	neverTwo(t, r.Lab)
}

// runsNothing runs a hook, whatever becomes of it, under strace and with something to read.
func (r *mhaRig) runsNothing(trace string, args []string) {
	r.Helper()
	stdin, err := os.Create(trace + ".stdin")
	must(r.T, err)
	defer stdin.Close()
	_, err = stdin.WriteString("YES\n")
	must(r.T, err)
	_, err = stdin.Seek(0, io.SeekStart)
	must(r.T, err)
	cmd := exec.CommandContext(within(r.T), "strace", append([]string{"-f", "-e", "trace=execve,execveat,fork,vfork,clone,clone3", "-o", trace, binary, "mha"}, args...)...)
	cmd.Env, cmd.Stdin = append(os.Environ(), "REMORA_SOCKET="+r.Node("mgr").SocketPath()), stdin
	var out []byte
	must(r.T, r.Node("mgr").NS.Do(func() error {
		out, err = cmd.CombinedOutput()
		return nil
	}))
	if !strings.Contains(string(out), "remora: ") {
		r.Errorf("%v: %v: %s", args, err, out)
	}
	if at, err := stdin.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		r.Errorf("%v read %d bytes of standard input: %v", args, at, err)
	}
	b, err := os.ReadFile(trace)
	must(r.T, err)
	programs := 0
	for line := range strings.Lines(string(b)) {
		switch {
		case strings.Contains(line, "execve"):
			programs++ // the first is the hook itself
		case strings.Contains(line, "fork(") || strings.Contains(line, "clone") && !strings.Contains(line, "CLONE_THREAD") && !strings.Contains(line, "resumed"):
			r.Errorf("%v starts a process: %s", args, line)
		}
	}
	if programs != 1 {
		r.Errorf("%v ran another program:\n%s", args, b)
	}
}
