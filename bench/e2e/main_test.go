package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// binary is the remora under test: the one that REMORA_BIN names, else one built for the test.
var binary string

func TestMain(m *testing.M) {
	if os.Getenv(wakeUp) != "" {
		wake()
		return
	}
	if os.Getenv(spinning) != "" {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if binary = os.Getenv("REMORA_BIN"); binary == "" {
		dir, err := os.MkdirTemp("", "remora-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "remora")
		build := exec.Command("go", "build", "-o", binary, "github.com/remora-ha/remora/cmd/remora")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build remora: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// patience bounds what a test waits for.
const patience = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// raise makes a laboratory with three nodes and their servers. When the test has failed, the daemons' logs are shown.
// However it ends, nobody may ever have held the address together with somebody else.
func raise(t *testing.T, change func(*lab.Options)) *lab.Lab {
	t.Helper()
	opts := lab.Options{Server: lab.MariaDB{}, Remora: binary}
	if change != nil {
		change(&opts)
	}
	l, err := lab.New(within(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, l)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close the laboratory: %v", err)
		}
	})
	return l
}

// besides lets a test run beside another such one and beside none that measures: it is not about milliseconds, and most
// of it is waiting. Its laboratory is to be unhurried.
func besides(t *testing.T) { t.Parallel() }

// unhurried gives a laboratory time enough for six servers, their clients and maybe another laboratory on two busy cores: what is
// tested is not how soon a hang is noticed.
func unhurried(o *lab.Options) {
	o.Timing = map[string]string{"ttl": "1500ms", "raft_heartbeat": "250ms", "raft_election": "250ms", "probe_timeout": "1s"}
}

// up raises a laboratory whose address is served, and a client that connects to it all the time.
func up(t *testing.T, change func(*lab.Options)) *lab.Lab {
	t.Helper()
	l := raise(t, change)
	must(t, l.Up(within(t), lab.StreamOptions{Interval: 2 * time.Millisecond}))
	must(t, l.WaitStable(within(t)))
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func showLogs(t *testing.T, l *lab.Lab) {
	for _, n := range l.Nodes() {
		b, err := os.ReadFile(n.LogPath())
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if i := slices.IndexFunc(lines, func(s string) bool { return !strings.HasPrefix(s, "{") }); i >= 0 {
			t.Logf("%s has crashed:\n%s", n.Name, strings.Join(lines[i:min(i+40, len(lines))], "\n"))
			lines = lines[:i]
		}
		if len(lines) > 60 {
			lines = lines[len(lines)-60:]
		}
		t.Logf("the end of the log of %s:\n%s", n.Name, strings.Join(lines, "\n"))
	}
}

// neverTwo fails the test if two nodes ever held the address at once, by the kernel's events.
func neverTwo(t *testing.T, l *lab.Lab) {
	t.Helper()
	overlaps, err := l.Overlaps(l.VIP())
	must(t, err)
	for _, o := range overlaps {
		t.Errorf("%v held %v at once for %v", o.Nodes, o.Addr, o.To.Sub(o.From))
	}
}

// holders returns the nodes whose namespace has the address now, asked of the kernel and not of events.
func holders(t *testing.T, l *lab.Lab, addr netip.Addr) []string {
	t.Helper()
	var names []string
	for _, n := range l.Nodes() {
		out, err := n.NS.Command(t.Context(), "ip", "-o", "addr", "show", "to", addr.String())
		must(t, err)
		if len(out) > 0 {
			names = append(names, n.Name)
		}
	}
	return names
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("waited %v in vain until %s", patience, what)
}

// logged reports whether the log of a node has a line with all of these texts.
func logged(t *testing.T, n *lab.Node, texts ...string) bool {
	t.Helper()
	b, err := os.ReadFile(n.LogPath())
	must(t, err)
	for line := range strings.Lines(string(b)) {
		has := true
		for _, s := range texts {
			has = has && strings.Contains(line, s)
		}
		if has {
			return true
		}
	}
	return false
}

// others returns the nodes but one.
func others(l *lab.Lab, name string) []*lab.Node {
	var ns []*lab.Node
	for _, n := range l.Nodes() {
		if n.Name != name {
			ns = append(ns, n)
		}
	}
	return ns
}
