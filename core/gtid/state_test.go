package gtid

import (
	"strings"
	"testing"
)

func TestStateShowsWhatPositionsDoNot(t *testing.T) {
	for _, c := range []struct{ ours, theirs, lacking string }{
		{"", "0-1-7", ""},
		{"0-1-7", "", ""},
		{"0-1-7", "0-1-7", ""},
		{"0-1-7,0-2-9", "0-1-7,0-2-9,0-3-20", ""},
		{"0-1-7,0-2-12", "0-1-7,0-2-9,0-3-20", "0-2-12"}, // the position 0-3-20 is higher than 0-2-12
		{"0-2-12", "0-1-7,0-3-20", "0-2-12"},             // nothing of it has ever come there
		{"0-2-5", "0-1-7,0-3-20", ""},                    // their binary log begins later
		{"1-2-5", "0-1-1", ""},
		{"0-1-8, 1-1-4", "0-1-7,1-1-3", "0-1-8,1-1-4"},
	} {
		ours, err1 := ParseState(c.ours)
		theirs, err2 := ParseState(c.theirs)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if got := strings.Join(ours.Lacking(theirs), ","); got != c.lacking {
			t.Errorf("of %q %q lacks %q, not %q", c.ours, c.theirs, c.lacking, got)
		}
	}
}

func FuzzParseState(f *testing.F) {
	for _, s := range []string{"", "0-1-7", "0-1-7,0-2-9", "0-1", ",", "0-1-7,", "4294967296-1-1", "0-1-18446744073709551615", " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseState(text)
		if err != nil {
			return
		}
		if lacking := s.Lacking(s); len(lacking) > 0 && !repeats(s) {
			t.Errorf("%q lacks %v of itself", text, lacking)
		}
	})
}

// repeats reports whether a server is in a state twice, which MariaDB does not write.
func repeats(s State) bool {
	for i, a := range s {
		for _, b := range s[i+1:] {
			if a.Domain == b.Domain && a.Server == b.Server {
				return true
			}
		}
	}
	return false
}
