package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

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
