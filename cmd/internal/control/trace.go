package control

import (
	"fmt"
	"io"
	"strings"

	"github.com/remora-ha/remora/cmd/internal/trace"
	"github.com/remora-ha/remora/core"
)

// TraceRequest asks for the pieces of the last takeovers.
type TraceRequest struct {
	// Forwarded is as in SwitchoverRequest: another node asks for the pieces of this one alone.
	Forwarded bool `json:"-"`
}

// TraceResult is what is remembered of the last takeovers.
type TraceResult struct {
	Pieces []trace.Piece `json:"pieces"`
	// Silent says for each node whose pieces are missing why.
	Silent map[string]string `json:"silent"`
}

// TracedEntry is a change of ownership and where its milliseconds went.
type TracedEntry struct {
	HistoryEntry
	Trace trace.Takeover `json:"trace"`
}

// Traced puts the pieces beside the newest limit grants of a whole history, of one group unless group is empty. A limit of
// 0 means all.
func Traced(history []HistoryEntry, r TraceResult, group string, limit int) []TracedEntry {
	traced := []TracedEntry{}
	released := map[string]HistoryEntry{} // the last release of each group
	for _, e := range history {
		switch e.Kind {
		case core.KindRelease:
			released[e.Group] = e
		case core.KindGrant:
			if last, ok := released[e.Group]; ok && e.From == "" && last.Epoch+1 == e.Epoch {
				e.From = last.Node
			}
			if group == "" || e.Group == group {
				traced = append(traced, TracedEntry{e, trace.Join(r.Pieces, e.Group, e.Epoch, e.From, e.Node, r.Silent)})
			}
		}
	}
	if n := len(traced) - limit; limit > 0 && n > 0 {
		traced = traced[n:]
	}
	return traced
}

// WriteTraces shows to people where the milliseconds of each change of ownership went.
func WriteTraces(w io.Writer, entries []TracedEntry) error {
	var b strings.Builder
	for i, e := range entries {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s  %s epoch %d: %s -> %s, %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), e.Group, e.Epoch,
			orDash(e.From), e.Node, oneLine(e.Reason))
		for _, p := range e.Trace.Pieces {
			fmt.Fprintf(&b, "  %s: %s\n", oneLine(p.Node), steps(p))
		}
		for _, way := range e.Trace.Ways {
			fmt.Fprintf(&b, "  on the way from %s to %s and back: %s ms\n", oneLine(way.From), oneLine(way.To), inMillis(way.US))
		}
		for _, why := range e.Trace.Missing {
			fmt.Fprintf(&b, "  %s\n", oneLine(why))
		}
		if line := e.sum(); line != "" {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// steps lists the moments of a piece, each with the milliseconds since the one before it.
func steps(p trace.Piece) string {
	var words []string
	for i, m := range p.Marks {
		word := oneLine(strings.ReplaceAll(m.Name, "_", " "))
		if i > 0 {
			word += " +" + inMillis(m.US-p.Marks[i-1].US)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func (e TracedEntry) sum() string {
	switch t := e.Trace; {
	case t.LeastUS == nil:
		return ""
	case t.MostUS == nil:
		return fmt.Sprintf("from the first moment known to the announcement: %s ms and the ways between the nodes", inMillis(*t.LeastUS))
	case *t.MostUS == *t.LeastUS:
		return fmt.Sprintf("from the first moment known to the announcement: %s ms", inMillis(*t.LeastUS))
	default:
		return fmt.Sprintf("from the first moment known to the announcement: %s to %s ms", inMillis(*t.LeastUS), inMillis(*t.MostUS))
	}
}

// inMillis writes microseconds as milliseconds.
func inMillis(us int64) string { return fmt.Sprintf("%.2f", float64(us)/1000) }
