package core

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzLedgerApply gives a ledger commands as they may come from a log that another version wrote. Whatever they say,
// nothing panics, epochs only rise, and a ledger restored in between agrees.
func FuzzLedgerApply(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var commands []Command
		if json.Unmarshal(data, &commands) != nil {
			return
		}
		a, b := NewLedger(), NewLedger()
		for i, c := range commands {
			before := a.View()
			a.Apply(Index(i+1), 1, c)
			b.Apply(Index(i+1), 1, c)
			checkLedger(t, before, a.View())
			snapshot := snapshotOf(t, b)
			b = NewLedger()
			if err := b.Restore(snapshot); err != nil {
				t.Fatalf("own snapshot: %v", err)
			}
		}
		if x, y := snapshotOf(t, a), snapshotOf(t, b); !bytes.Equal(x, y) {
			t.Fatalf("ledgers differ\n%s\n%s", x, y)
		}
	})
}

// FuzzRestore reads snapshots. What is accepted is written again in a form that is stable.
func FuzzRestore(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		l := NewLedger()
		if l.Restore(data) != nil {
			if l.View().Index != 0 {
				t.Fatal("a refused snapshot changed the ledger")
			}
			return
		}
		first := snapshotOf(t, l)
		again := NewLedger()
		if err := again.Restore(first); err != nil {
			t.Fatalf("own snapshot: %v", err)
		}
		if second := snapshotOf(t, again); !bytes.Equal(first, second) {
			t.Fatalf("not stable\n%s\n%s", first, second)
		}
		again.Apply(again.View().Index+1, 1, Command{Ops: []Op{configureOp(ledgerConfig(again.View().Config.Version+1, "10.0.0.1/32", "10.0.0.2/32"))}})
	})
}
