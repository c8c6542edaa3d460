package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// moment returns a fixed time plus some milliseconds.
func moment(ms int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}

var (
	testVIP  = netip.MustParseAddr("10.77.0.100")
	otherVIP = netip.MustParseAddr("10.77.0.101")
)

// addrEvents reads "10+a" as: after 10 ms node a gets the address; "-" is a loss, "!" another address.
func addrEvents(t *testing.T, script string) []AddrEvent {
	t.Helper()
	var events []AddrEvent
	for _, word := range strings.Fields(script) {
		i := strings.IndexAny(word, "+-!")
		at, err := time.ParseDuration(word[:i] + "ms")
		if err != nil {
			t.Fatal(err)
		}
		e := AddrEvent{Time: moment(0).Add(at), Node: word[i+1:], Addr: testVIP, Added: word[i] != '-'}
		if word[i] == '!' {
			e.Addr = otherVIP
		}
		events = append(events, e)
	}
	return events
}

func TestOverlaps(t *testing.T) {
	tests := []struct {
		name, script string
		want         []Overlap
	}{
		{"nothing", "", nil},
		{"one holder", "1+a", nil},
		{"a clean move", "1+a 5-a 6+b", nil},
		{"a clean move within one time stamp", "1+a 5-a 5+b", nil},
		{"an overlap within one time stamp", "1+a 5+b 5-a", []Overlap{{Nodes: []string{"a", "b"}, From: moment(5), To: moment(5)}}},
		{"repeated additions are changes", "1+a 2+a 3+a 4-a 5+b", nil},
		{"a removal of what is not there", "1-a 2+b 3-a", nil},
		{"an overlap", "1+a 5+b 7-a", []Overlap{{Nodes: []string{"a", "b"}, From: moment(5), To: moment(7)}}},
		{"an overlap that goes on", "1+a 5+b", []Overlap{{Nodes: []string{"a", "b"}, From: moment(5)}}},
		{"three at once are one overlap", "1+a 2+b 3+c 4-a 5-b",
			[]Overlap{{Nodes: []string{"a", "b", "c"}, From: moment(2), To: moment(5)}}},
		{"two overlaps", "1+a 2+b 3-b 4+c 6-a", []Overlap{
			{Nodes: []string{"a", "b"}, From: moment(2), To: moment(3)}, {Nodes: []string{"a", "c"}, From: moment(4), To: moment(6)}}},
		{"another address", "1+a 2!b 3!c", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Overlaps(addrEvents(t, tt.script), testVIP)
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Overlap{}, "Addr")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestHoldings(t *testing.T) {
	got := Holdings(addrEvents(t, "1+a 2+a 3!b 5-a 6+b 9-b 9-b 10+a"), testVIP)
	want := []Holding{{Node: "a", From: moment(1), To: moment(5)}, {Node: "b", From: moment(6), To: moment(9)},
		{Node: "a", From: moment(10)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestUnowned(t *testing.T) {
	tests := []struct {
		name, script string
		from, to     int
		want         time.Duration
	}{
		{"never owned", "", 10, 30, 20 * time.Millisecond},
		{"owned all the time", "1+a", 10, 30, 0},
		{"a move", "1+a 12-a 17+b", 10, 30, 5 * time.Millisecond},
		{"an overlapping move", "1+a 12+b 17-a", 10, 30, 0},
		{"lost before the stretch", "1+a 5-a 17+b", 10, 30, 7 * time.Millisecond},
		{"lost and not found", "1+a 22-a", 10, 30, 8 * time.Millisecond},
		{"the longest of two", "1+a 11-a 13+b 15-b 21+a", 10, 30, 6 * time.Millisecond},
		{"later events do not count", "1+a 40-a 90+b", 10, 30, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Unowned(addrEvents(t, tt.script), testVIP, moment(tt.from), moment(tt.to)); got != tt.want {
				t.Errorf("Unowned = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestShared(t *testing.T) {
	tests := []struct {
		name, script string
		want         time.Duration
	}{
		{"nobody", "", 0},
		{"one after the other", "1+a 12-a 13+b", 0},
		{"two", "1+a 12+b 15-a", 3 * time.Millisecond},
		{"three are not more than two", "1+a 12+b 13+c 14-b 15-c", 3 * time.Millisecond},
		{"twice", "1+a 12+b 13-b 15+b 17-b", 3 * time.Millisecond},
		{"from before and on and on", "1+a 2+b", 10 * time.Millisecond},
		{"over before", "1+a 2+b 9-b", 0},
		{"only after", "1+a 25+b", 0},
		{"another address", "1+a 12!b", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Shared(addrEvents(t, tt.script), testVIP, moment(10), moment(20)); got != tt.want {
				t.Errorf("shared for %v, want %v", got, tt.want)
			}
		})
	}
}

// A change is a node that gets the address after another, whether or not the other has lost it by then.
func TestChanges(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	vip := DefaultVIP().Addr()
	ev := func(ms int, node string, added bool) AddrEvent {
		return AddrEvent{Time: at(ms), Node: node, Addr: vip, Added: added}
	}
	events := []AddrEvent{
		ev(1, "db1", true),                      // the first is none
		ev(2, "db1", true),                      // a lifetime
		ev(3, "db2", true), ev(4, "db1", false), // before the time
		ev(10, "db3", true), // both sides of a partition
		ev(11, "db2", true), // it has had it all the time, and gets it again
		{Time: at(12), Node: "db1", Addr: DefaultVIP().Addr().Next(), Added: true},
		ev(13, "db2", false), ev(14, "db2", true), // back to where it was
		ev(30, "db1", true), // after the time
	}
	if got := Changes(events, vip, at(10), at(20)); got != 2 {
		t.Errorf("%d changes, want 2", got)
	}
	if got := Losses(events, vip, at(10), at(20)); len(got) != 1 || got[0].Node != "db2" || got[0].To != at(13) { // for a millisecond
		t.Errorf("losses %v, want db2's after 13 ms", got)
	}
	if got := Changes(nil, vip, at(0), at(20)); got != 0 {
		t.Errorf("%d changes of nothing", got)
	}
}
