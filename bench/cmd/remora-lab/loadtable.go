package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/remora-ha/remora/bench/peers"
)

// span is a time for which all systems are watched at once.
type span struct {
	name     string
	planned  time.Duration
	from, to time.Time
	busy     float64 // percent of all processors
}

// String says how long it was, and how long it was to be if it was cut off.
func (s span) String() string {
	took := s.to.Sub(s.from).Round(time.Second)
	if took < s.planned {
		return fmt.Sprintf("%v of %v", took, s.planned)
	}
	return took.String()
}

// watched is what was seen in a span of a system to which nothing happened.
type watched struct {
	span   span
	system string
	moves  int // times that another node got the address
	// losses are the times that a node lost the address, for another or to get it again.
	losses []peers.Incident
	// alarms are the servers that were taken for failed; tells says whether the system's logs tell.
	alarms []peers.Incident
	tells  bool
	// double is for how long two nodes had the address bound, unowned the longest time for which none had.
	double, unowned time.Duration
	gap             time.Duration // of the client
	err             error         // why something may be missing
}

// soFar is a line of progress about all systems in a span.
func soFar(seen []watched) string {
	parts := make([]string, 0, len(seen))
	for _, w := range seen {
		part := fmt.Sprintf("%s %d", w.system, len(w.losses))
		if len(w.alarms) > 0 {
			part += fmt.Sprintf(" (false alarms %d)", len(w.alarms))
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%s, %v: given up: %s", seen[0].span.name, seen[0].span, strings.Join(parts, ", "))
}

// loadTable writes what was seen in Markdown, with the reasons in a list below the table.
func loadTable(head string, seen []watched) string {
	var table, reasons strings.Builder
	for _, w := range seen {
		fmt.Fprintln(&table, w.row())
		list := func(what string, alarms []peers.Incident) {
			for _, a := range alarms {
				fmt.Fprintf(&reasons, "- %s, %s, %s after %v, %s: %s\n", w.system, w.span.name, what,
					a.Time.Sub(w.span.from).Round(time.Millisecond), a.Node, a.Reason)
			}
		}
		list("given up", w.losses)
		list("false alarm", w.alarms)
		if w.err != nil {
			fmt.Fprintf(&reasons, "- %s: %v\n", w.span.name, w.err)
		}
	}
	text := head + "\n\n| | span | processors busy | false moves | times given up | false alarms | two nodes had it | none had it, longest | client's gap |\n" +
		"|---|---|---|---|---|---|---|---|---|\n" + table.String()
	if reasons.Len() > 0 {
		text += "\nWhy, as the logs have it:\n\n" + reasons.String()
	}
	return text
}

func (w watched) row() string {
	alarms := ""
	if w.tells {
		alarms = fmt.Sprint(len(w.alarms))
	}
	return fmt.Sprintf("| %s, %s | %v | %.0f %% | %d | %d | %s | %.1f ms | %.1f ms | %.1f ms |", w.system, w.span.name, w.span, w.span.busy,
		w.moves, len(w.losses), alarms, msOf(w.double), msOf(w.unowned), msOf(w.gap))
}
