package netio

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

// leaveFence leaves the tables of a process that was killed: with ports, and on an interface with frames.
func leaveFence(t *testing.T, w *wire) {
	t.Helper()
	f, err := NewFence(FenceConfig{})
	must(t, err)
	must(t, f.SetPorts(&PortFence{Ports: []uint16{3306}, Lease: fence4}))
	must(t, f.Install(fenced))
	f.GuardFrames(w.name, w.link().Index)
	must(t, f.Detach())
}

func TestFenceLeftoversAreRemoved(t *testing.T) {
	w, a := newNode(t)
	nft(t, "add table inet others { set leases { type mark; timeout 1h; } ; map addr4 { type ipv4_addr : mark; } ; chain in { type filter hook input priority 0; accept; } ; }")
	nft(t, "add table ip remora { set leases { type mark; timeout 1h; } ; map addr4 { type ipv4_addr : mark; } ; }")
	t.Cleanup(func() { nft(t, "delete table inet others; delete table ip remora") })
	before := nft(t, "list", "ruleset")
	leaveFence(t, w)
	left := nft(t, "list", "ruleset")
	a.silent(fence4, own4)
	b := newBinder(t, Config{})

	removed, err := b.RemoveFenceLeftovers(t.Context())
	if !errors.Is(err, ErrStillBound) || len(removed) != 0 {
		t.Errorf("with the addresses bound: removed %v, %v", removed, err)
	}
	if now := nft(t, "list", "ruleset"); now != left {
		t.Errorf("with the addresses bound the rules have become:\n%s", now)
	}

	for _, ip := range fenced {
		must(t, removeByHand(w.name, netip.PrefixFrom(ip, ip.BitLen())))
	}
	wantErr(t, withoutRights(func() error { _, err := b.RemoveFenceLeftovers(t.Context()); return err }), ErrPermission)
	removed, err = b.RemoveFenceLeftovers(t.Context())
	must(t, err)
	if !slices.Contains(removed, "inet remora") || !slices.Contains(removed, "arp remora") {
		t.Errorf("removed %v", removed)
	}
	if now := nft(t, "list", "ruleset"); now != before {
		t.Errorf("before:\n%safter:\n%s", before, now)
	}
	if removed, err := b.RemoveFenceLeftovers(t.Context()); err != nil || len(removed) != 0 {
		t.Errorf("the second time: %v, %v", removed, err)
	}
	for _, ip := range fenced {
		must(t, addByHand(w.name, netip.PrefixFrom(ip, ip.BitLen())))
		a.expect(ip)
	}
}

func TestForeignTableOfOurNameStays(t *testing.T) {
	newWire(t)
	for _, sets := range []string{"", "set leases { type ipv6_addr; } ;", "set leases { type mark; timeout 1h; } ; set addr4 { type ipv4_addr; } ;"} {
		nft(t, "add table inet remora { chain in { type filter hook input priority 0; accept; } ; "+sets+" }")
		before := nft(t, "list", "ruleset")
		removed, err := newBinder(t, Config{}).RemoveFenceLeftovers(t.Context())
		if err != nil || len(removed) != 0 {
			t.Errorf("removed %v, %v", removed, err)
		}
		if now := nft(t, "list", "ruleset"); now != before {
			t.Errorf("before:\n%safter:\n%s", before, now)
		}
		nft(t, "delete table inet remora")
	}
}
