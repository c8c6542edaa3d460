package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Takeover is what the laboratory reads of a takeover that "remora history --trace --json" shows, schema 1.
type Takeover struct {
	Epoch uint64 `json:"epoch"`
	From  string `json:"from"`
	Node  string `json:"node"`
	Trace struct {
		Pieces []TracePiece `json:"pieces"`
		// LeastUS and MostUS bound the whole, in microseconds; nil where a part is missing.
		LeastUS *int64   `json:"least_us"`
		MostUS  *int64   `json:"most_us"`
		Missing []string `json:"missing"`
	} `json:"trace"`
}

// TracePiece is what one node has measured of a takeover.
type TracePiece struct {
	Node  string      `json:"node"`
	Marks []TraceMark `json:"marks"`
}

// TraceMark is a moment, in microseconds of the node's clock since the piece's first one.
type TraceMark struct {
	Name string `json:"name"`
	US   int64  `json:"us"`
}

// LastTakeover asks the node's daemon for the newest takeover of the laboratory's group, which asks the others for their parts. One
// that does not answer costs it two seconds.
func (n *Node) LastTakeover(ctx context.Context) (Takeover, error) {
	out, err := n.Remora(ctx, "history", "--trace", "--json", "--group", Group, "--limit", "1")
	if err != nil {
		return Takeover{}, err
	}
	var h struct{ Entries []Takeover }
	if err := json.Unmarshal(out, &h); err != nil {
		return Takeover{}, fmt.Errorf("read the last takeover as %s knows it: %w", n.Name, err)
	}
	if len(h.Entries) != 1 {
		return Takeover{}, fmt.Errorf("read the last takeover as %s knows it: %d entries", n.Name, len(h.Entries))
	}
	return h.Entries[0], nil
}

// Between returns the time from one moment to another, if the piece has both.
func (p TracePiece) Between(from, to string) (time.Duration, bool) {
	find := func(name string) int {
		return slices.IndexFunc(p.Marks, func(m TraceMark) bool { return m.Name == name })
	}
	i, j := find(from), find(to)
	if i < 0 || j < 0 {
		return 0, false
	}
	return time.Duration(p.Marks[j].US-p.Marks[i].US) * time.Microsecond, true
}
