package daemon

import "testing"

const uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"

func TestSetsOfBothFamilies(t *testing.T) {
	for _, c := range []struct {
		a, b    string
		missing uint64
		union   string
		fails   bool
	}{
		{a: "", b: "", union: ""},
		{a: "0-1-42", b: "0-1-40", missing: 2, union: "0-1-42"},
		{a: "0-1-40", b: "0-2-42", missing: 0, union: "0-2-42"},
		{a: "", b: "0-1-3", missing: 0, union: "0-1-3"},
		{a: uuid + ":1-7", b: uuid + ":1-5", missing: 2, union: uuid + ":1-7"},
		{a: uuid + ":1-7", b: "", missing: 7, union: uuid + ":1-7"},
		{a: uuid + ":1-7", b: "0-1-3", fails: true},
		{a: "what", b: "0-1-3", fails: true},
		{a: "0-1-3", b: "what", fails: true},
	} {
		n, err := gtidSets{}.Missing(c.a, c.b)
		if n != c.missing || (err != nil) != c.fails {
			t.Errorf("%q lacks %d of %q, %v", c.b, n, c.a, err)
		}
		if u, err := (gtidSets{}).Union(c.a, c.b); u != c.union || (err != nil) != c.fails {
			t.Errorf("%q and %q are %q, %v", c.a, c.b, u, err)
		}
	}
}
