package core

import (
	"maps"
	"testing"
	"time"
)

// Servers that do not stop their receivers are asked again in every round. The log says it once for each of them and reason.
func TestWhoDoesNotStopItsReceiverIsNamedOnce(t *testing.T) {
	c := promoteCluster(t)
	asked, said := 0, map[string]int{}
	c.act = func(_ NodeName, _ Event, as []Action) {
		asked += len(only[FreezeServer](as))
		for _, n := range only[Note](as) {
			if n.Reason == "it may not" || n.Reason == "nor now" {
				said[n.Text+": "+n.Reason]++
			}
		}
	}
	refuse := func(why string) {
		for _, name := range []NodeName{"n2", "n3"} {
			c.nodes[name].fail["freeze"] = why
		}
	}
	refuse("it may not")
	c.nodes["n1"].health.State = Failed
	c.look(c.nodes["n1"])
	c.run(5 * time.Second)
	refuse("nor now")
	c.run(5 * time.Second)
	if asked < 20 {
		t.Errorf("the servers were asked %d times", asked)
	}
	want := map[string]int{}
	for _, name := range []string{"n2", "n3"} {
		for _, why := range []string{"it may not", "nor now"} {
			want[name+" did not stop its receiver: "+why] = 1
		}
	}
	if !maps.Equal(said, want) {
		t.Errorf("the log says %v, want %v", said, want)
	}
}
