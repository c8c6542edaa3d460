package core

import (
	"net/netip"
	"reflect"
	"testing"
)

// crowd returns n addresses.
func crowd(n int) (ps []netip.Prefix) {
	for i := range n {
		ps = append(ps, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), 32))
	}
	return ps
}

func TestNoticeOfManyAddressesIsMadeWhole(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		spec, next           int
		knownSpec, knownNext []netip.Prefix
		want                 bool
	}{
		{"few are named", MaxNoticed, 0, nil, nil, true},
		{"many are known", 1000, 0, crowd(1000), nil, true},
		{"few and many", 3, 1000, crowd(3), crowd(1000), true},
		{"both many", 1000, 999, crowd(1000), crowd(999), true},
		{"the next ones have come into force", 1000, 0, crowd(20), crowd(1000), true},
		{"one less is known", 1000, 0, crowd(999), nil, false},
		{"another order", 17, 0, append(crowd(17)[1:], crowd(1)...), nil, false},
		{"the next ones are not known", 1000, 1001, crowd(1000), nil, false},
		{"nothing is known", 1000, 0, nil, nil, false},
	} {
		g := GroupState{Index: 9, Epoch: 4, Owner: "n2", Spec: GroupSpec{Name: "writer", Addresses: crowd(tt.spec)}}
		if tt.next > 0 {
			g.Next = &GroupSpec{Name: "writer", Addresses: crowd(tt.next)}
		}
		known := GroupState{Index: 8, Epoch: 3, Spec: GroupSpec{Name: "writer", Addresses: tt.knownSpec}}
		if tt.knownNext != nil {
			known.Next = &GroupSpec{Addresses: tt.knownNext}
		}
		n := NewNotice("writer", g)
		if len(n.State.Spec.Addresses) > MaxNoticed || n.State.Next != nil && len(n.State.Next.Addresses) > MaxNoticed {
			t.Errorf("%s: more than %d addresses are named", tt.name, MaxNoticed)
		}
		got, ok := n.whole(known)
		if ok != tt.want || ok && !reflect.DeepEqual(got, g) {
			t.Errorf("%s: made whole: %t, want %t\n%+v", tt.name, ok, tt.want, got)
		}
		m := &Machine{fresh: map[GroupName]GroupState{"writer": known}}
		m.noticed(n)
		if took := m.fresh["writer"].Index == g.Index; took != tt.want {
			t.Errorf("%s: the notice was taken: %t, want %t", tt.name, took, tt.want)
		}
	}
}
