package consensus

import (
	"strings"
	"testing"

	"github.com/remora-ha/remora/core"
)

// endless is a snapshot without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
func (endless) Close() error               { return nil }

// gullible takes any state for a whole one.
type gullible struct {
	fakeLedger
	restored bool
}

func (g *gullible) Restore([]byte) error               { g.restored = true; return nil }
func (*gullible) Recover(core.NodeName, int64, string) {}

// A snapshot that is too long is refused and not cut: its beginning may look whole.
func TestARecoveryRefusesASnapshotThatIsTooLong(t *testing.T) {
	l := &gullible{}
	err := (&recovery{ledger: l}).Restore(endless{})
	if err == nil || !strings.Contains(err.Error(), "more than the 67108864 bytes") || l.restored {
		t.Errorf("got error %v, restored: %t", err, l.restored)
	}
}

func TestWhatAConfigLacksIsNamed(t *testing.T) {
	_, err := Open(Config{})
	const want = "consensus: not set: [Cluster Deliver DeliverDatagram Incarnation Ledger Peers Self StateDir TLS Timing]"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
