package sim

import "testing"

func TestBreaksTable(t *testing.T) {
	for _, b := range []Break{NoMargin, ConfirmTermAtSending, ForgetLongLeases, NoCompareAndSet, SameIncarnation} {
		for _, k := range [][]faultKind{nil, {isolate, oneWay}, {twoLeaders, transfer}, {shortenLease}} {
			s := Search(1, 3000, 1, Options{Break: b, faults: k})
			if len(s.Failures) == 0 {
				t.Errorf("%-40s not caught in %d", b, s.Seeds)
				continue
			}
			t.Logf("%-40s %5d  %v", b, s.Seeds, s.Failures[0])
		}
	}
}
