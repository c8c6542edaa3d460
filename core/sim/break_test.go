package sim

import "testing"

func TestBreaksTable(t *testing.T) {
	for b := Nothing + 1; b < breaks; b++ {
		s := Search(1, 1500, 1, Options{Break: b})
		if len(s.Failures) == 0 {
			t.Errorf("%-40s not caught in %d", b, s.Seeds)
			continue
		}
		t.Logf("%-40s %5d  %v", b, s.Seeds, s.Failures[0])
	}
}
