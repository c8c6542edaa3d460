package core

import (
	"encoding/json"
	"fmt"
)

// snapshotVersion is the version of the encoding that Snapshot writes.
const snapshotVersion = 1

type snapshot struct {
	Version int     `json:"version"`
	View    View    `json:"view"`
	History []Entry `json:"history"`
}

// Snapshot encodes the whole ledger.
func (l *Ledger) Snapshot() ([]byte, error) {
	b, err := json.Marshal(snapshot{Version: snapshotVersion, View: l.view, History: l.history})
	if err != nil {
		return nil, fmt.Errorf("encode ledger snapshot at index %d: %w", l.view.Index, err)
	}
	return b, nil
}

// Restore replaces the ledger by a snapshot. On an error the ledger stays as it was.
func (l *Ledger) Restore(b []byte) error {
	var s snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("decode ledger snapshot of %d bytes: %w", len(b), err)
	}
	if s.Version != snapshotVersion {
		return fmt.Errorf("ledger snapshot has version %d, this remora knows version %d: use the newer binary", s.Version, snapshotVersion)
	}
	if s.View.Groups == nil {
		s.View.Groups = map[GroupName]GroupState{}
	}
	l.view, l.history = s.View, s.History
	return nil
}
