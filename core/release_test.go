package core

import (
	"testing"
	"time"
)

// An unbind that was on its way together with a claim proves nothing, whichever of their ends is told first.
func TestI2_NoReleaseOnAnUnbindThatAClaimMayHaveOvertaken(t *testing.T) {
	for _, order := range []string{"claim ends first", "unbind ends first"} {
		t.Run(order, func(t *testing.T) {
			s := newSolo(t)
			s.prove()
			s.later(time.Millisecond)
			s.grantTo("n1", soloIncarnation, s.m.seq)
			e := s.group().Epoch
			if as := s.step(failed); len(only[Unbind](as)) != 1 {
				t.Fatalf("want an unbind at once, got %v", as)
			}
			ends := []Event{BindDone{Group: "writer", Epoch: e}, UnbindDone{Group: "writer", Epoch: e, Gone: true}}
			if order == "unbind ends first" {
				ends[0], ends[1] = ends[1], ends[0]
			}
			as := append(s.step(ends[0]), s.step(ends[1])...)
			if got := sent[ReleaseRequest](as); len(got) > 0 {
				t.Fatalf("release was asked for on a look that the bind may have overtaken: %v", as)
			}
			if got := only[Unbind](as); len(got) != 1 {
				t.Fatalf("want a second unbind, got %v", as)
			}
			as = s.step(UnbindDone{Group: "writer", Epoch: e, Gone: true})
			if len(sent[ReleaseRequest](as)) == 0 {
				t.Fatalf("want a request for the release now, got %v", as)
			}
		})
	}
}
