package lab

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testLog = `{"time":"2026-01-01T00:00:00.010Z","level":"WARN","msg":"server is failed","reason":"refused","address":"127.0.0.1:3306"}
{"time":"2026-01-01T00:00:00.012+00:00","level":"INFO","msg":"bound","group":"writer","epoch":2}
panic: no JSON
{"time":"never","msg":"x"}
`

func TestReadLog(t *testing.T) {
	events, err := readLog(strings.NewReader(testLog), "db1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, e.Time.Sub(moment(0)).String()+" "+e.Node+" "+e.What+" | "+e.Detail)
	}
	want := []string{
		"10ms db1 server is failed | address=127.0.0.1:3306 reason=refused",
		"12ms db1 bound | epoch=2 group=writer",
		"12ms db1 panic: no JSON | ",
		`12ms db1 {"time":"never","msg":"x"} | `,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLines(t *testing.T) {
	ms := []Milestone{
		{Source: SourceDaemon, What: "server is*", Label: "detected", Once: true},
		{Source: SourceARP, Label: "announced", Once: true},
		{Source: SourceLab},
	}
	events := []Event{
		{Time: moment(0), Source: SourceLab, Node: "a", What: "kill -9"},
		{Time: moment(1), Source: SourceDaemon, Node: "a", What: "server is failed", Detail: "x=1",
			Attrs: map[string]any{"x": 1.0, "epoch": 2.0, "reason": "refused"}},
		{Time: moment(2), Source: SourceDaemon, Node: "a", What: "something else"},
		{Time: moment(3), Source: SourceDaemon, Node: "a", What: "server is failed"},
		{Time: moment(4), Source: SourceARP, Node: "b", What: WhatAnnounced},
		{Time: moment(5), Source: SourceARP, Node: "b", What: WhatAnnounced},
		{Time: moment(6), Source: SourceARP, Node: "a", What: WhatAnnounced},
	}
	got := Lines(events, moment(0), ms)
	want := []Line{
		{At: 0, Node: "a", Label: "kill -9"},
		{At: time.Millisecond, Node: "a", Label: "detected", Detail: "epoch 2: refused"},
		{At: 4 * time.Millisecond, Node: "b", Label: "announced"},
		{At: 6 * time.Millisecond, Node: "a", Label: "announced"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var b strings.Builder
	if err := WriteLines(&b, got); err != nil {
		t.Fatal(err)
	}
	if line := strings.Split(b.String(), "\n")[1]; !strings.Contains(line, "1.0 ms") || !strings.HasSuffix(line, "refused") {
		t.Errorf("printed %q", b.String())
	}
}

func TestRules(t *testing.T) {
	f := newFaults()
	f.drop["b"] = Both
	f.drop["a"] = In
	f.loss["c"] = 12.5
	f.pairs[[2]string{"a", "c"}] = true
	port := func(n string) string { return "p-" + n }
	want := []dropRule{
		{at: hookLeave, out: "p-a"}, {at: hookEnter, in: "p-b"}, {at: hookLeave, out: "p-b"},
		{at: hookForward, in: "p-a", out: "p-c"},
		{at: hookEnter, in: "p-c", percent: 12.5}, {at: hookLeave, out: "p-c", percent: 12.5},
	}
	if diff := cmp.Diff(want, f.rules(port), cmp.AllowUnexported(dropRule{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	f.heal("c")
	f.heal("b")
	if got := f.rules(port); len(got) != 1 || got[0] != want[0] {
		t.Errorf("after healing: %+v", got)
	}
}

func TestConfig(t *testing.T) {
	o, err := Options{Name: "test", Nodes: []NodeOptions{{Name: "db1"}, {Name: "mgr", Witness: true}},
		Timing: map[string]string{"ttl": "400ms", "fall": "3"}, ExtraConfig: "[more]\nx = 1\n"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	text := o.config(plan(o).nodes, nodePaths{StateDir: "/s", Socket: "/k", Password: "/p", CA: "/ca", Cert: "/cert", Key: "/key"}, 3)
	for _, want := range []string{"cluster = \"test\"", "[timing]\nfall = 3\nttl = \"400ms\"", "name = \"mgr\"\naddress = \"10.77.0.20:7400\"\nwitness = true",
		"policy = \"any\"", "addresses = [\"10.77.0.100/32\"]", "interface = \"eth0\"", "[more]\nx = 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, text)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	bad := []Options{
		{Nodes: []NodeOptions{{Name: "client"}}},
		{Nodes: []NodeOptions{{Name: "a"}, {Name: "a"}}},
		{Nodes: []NodeOptions{{Name: "a b"}}},
		{Nodes: make([]NodeOptions, 12)},
		{Name: "a/b"},
		{Name: strings.Repeat("x", 100)},
	}
	for _, o := range bad {
		if _, err := o.complete(); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
