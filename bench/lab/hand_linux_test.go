package lab

import "testing"

func TestHandMovesAndAnnouncesTheAddress(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}})
	h, err := l.OpenHand()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	announced := func(node string) func() bool {
		return func() bool {
			frames, err := l.ARPFrames()
			if err != nil {
				t.Fatal(err)
			}
			last := len(frames) - 1
			return last >= 0 && frames[last].Gratuitous() && frames[last].SenderIP == l.VIP() && frames[last].Node == node &&
				frames[last].SenderHW.String() == l.Node(node).MAC.String()
		}
	}
	if err := h.Give("db1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "db1 has the address", func() bool { return l.Holder(l.VIP()) == "db1" })
	eventually(t, "an announcement by db1", announced("db1"))
	if err := h.Give("db1"); err == nil {
		t.Error("db1 was given what it has")
	}

	if err := h.Take("db1"); err != nil {
		t.Fatal(err)
	}
	if err := h.Give("db2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "db2 alone has the address", func() bool {
		holders := l.Holders()
		return len(holders) == 1 && holders[0] == "db2"
	})
	eventually(t, "an announcement by db2", announced("db2"))
	if overlaps, err := l.Overlaps(l.VIP()); err != nil || len(overlaps) > 0 {
		t.Errorf("both had it: %v %v", overlaps, err)
	}
	if err := h.Take("db1"); err == nil {
		t.Error("taken from a node that does not have it")
	}
}
