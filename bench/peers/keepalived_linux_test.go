package peers

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// idle is a server that has a process and nothing else.
type idle struct{}

func (idle) Prepare(context.Context, string, lab.ServerSpec) error { return nil }
func (idle) Command(lab.ServerSpec) *exec.Cmd                      { return exec.Command("sleep", "1000") }
func (idle) Follow(lab.ServerSpec) []string                        { return nil }
func (idle) Source(context.Context, *sql.DB) (string, error) {
	return "", errors.New("it replicates nothing")
}
func (idle) Identify(string) string { return "" }

// newLab raises a laboratory of nodes with servers that do nothing.
func newLab(t *testing.T, nodes ...string) *lab.Lab {
	t.Helper()
	root, err := os.MkdirTemp("", "rl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	opts := lab.Options{Server: idle{}, Root: root}
	for _, n := range nodes {
		opts.Nodes = append(opts.Nodes, lab.NodeOptions{Name: n})
	}
	l, err := lab.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range l.Servers() {
		if err := n.LaunchServer(); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// TestTrackedProcess holds keepalived's configuration to what the kernel says of the server: a command line that nobody has is a
// server that never runs, and keepalived never serves.
func TestTrackedProcess(t *testing.T) {
	l := newLab(t, "db1")
	n := l.Node("db1")
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.Server().Pid()), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	want := "\n process " + strings.Join(strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00"), " ") + "\n"
	for _, k := range []*Keepalived{Brisk(l), Fastest(l), Checked(l)} {
		if c := k.config(n, 0); !strings.Contains(c, want) {
			t.Errorf("%s does not track %q:\n%s", k.Name(), want, c)
		}
	}
}

func TestErrorOfAStartHasTheLog(t *testing.T) {
	l := newLab(t, "db1")
	if _, err := l.StartStream(lab.StreamOptions{Interval: 10 * time.Millisecond, Timeout: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	said, err := l.Node("db1").StartProgram("talker", exec.Command("sh", "-c", "seq 10; exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	<-said.Done()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = servedBy(ctx, l, map[string]*lab.Process{"db1": said})
	if err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nobody serves: %v", err)
	}
	if want := "talker on db1 has ended with status 3 and said last:\n\t7\n\t8\n\t9\n\t10"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%q does not end with %q", err, want)
	}
}
