package main

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// slow is a server that answers nobody, and takes a while to end when it is asked to.
type slow struct{}

func (slow) Prepare(context.Context, string, lab.ServerSpec) error { return nil }
func (slow) Command(lab.ServerSpec) *exec.Cmd {
	return exec.Command("sh", "-c", `trap 'sleep 0.3; exit' TERM; echo ready; while :; do sleep 0.01; done`)
}
func (slow) Follow(lab.ServerSpec) []string                  { return nil }
func (slow) Source(context.Context, *sql.DB) (string, error) { return "", nil }
func (slow) Identify(string) string                          { return "" }

// newLab raises a laboratory of two nodes with such servers.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	root, err := os.MkdirTemp("", "rl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	l, err := lab.New(t.Context(), lab.Options{Nodes: []lab.NodeOptions{{Name: "db1"}, {Name: "db2"}}, Server: slow{}, Root: root})
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
		deadline := time.Now().Add(10 * time.Second)
		for {
			lines, err := n.Server().LastLines(1)
			if err != nil {
				t.Fatal(err)
			}
			if lines[0] == "ready" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the server of %s is not ready: %q", n.Name, lines)
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return l
}

func find(t *testing.T, name string) trial {
	t.Helper()
	all := trials(0)
	i := slices.IndexFunc(all, func(t trial) bool { return t.name == name })
	if i < 0 {
		t.Fatalf("there is no scenario %s", name)
	}
	return all[i]
}

// A server that is still about to end would not be started again.
func TestTheWayBackWaitsForAServerThatShutsDown(t *testing.T) {
	l := newLab(t)
	stop := find(t, "mysqld-stopped")
	if err := stop.act(t.Context(), l, nil, "db1"); err != nil {
		t.Fatal(err)
	}
	if err := stop.undo(l, nil, "db1"); err != nil {
		t.Fatal(err)
	}
	if l.Node("db1").Server().Running() {
		t.Error("the server that was asked to end still runs")
	}
	if !l.Node("db2").Server().Running() {
		t.Error("the other server has ended")
	}
}
