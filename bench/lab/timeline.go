package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Milestone says which events a time line shows, and under which word.
type Milestone struct {
	Source Source
	// What must be the event's, or its beginning if it ends with "*"; empty matches all of the source.
	What string
	// Label is the word for people; empty shows the event's own.
	Label string
	// Once shows only the first of each node.
	Once bool
	// News shows an event only from the node that tells it first: what is committed, all nodes tell in their turn.
	News bool
}

func (m Milestone) matches(e Event) bool {
	if m.Source != e.Source {
		return false
	}
	if prefix, ok := strings.CutSuffix(m.What, "*"); ok {
		return strings.HasPrefix(e.What, prefix)
	}
	return m.What == "" || m.What == e.What
}

// Milestones returns what is shown of a takeover.
func Milestones() []Milestone {
	return []Milestone{
		{Source: SourceLab},
		{Source: SourceDaemon, What: "server is failed", Label: "detected", Once: true},
		{Source: SourceDaemon, What: "server is healthy", Label: "server healthy", Once: true},
		{Source: SourceDaemon, What: "in office", Label: "new leader", Once: true},
		{Source: SourceDaemon, What: "giving up", Label: "giving up", Once: true},
		{Source: SourceDaemon, What: "giving back", Label: "giving back", Once: true},
		{Source: SourceDaemon, What: "draining the local server", Label: "draining", Once: true},
		{Source: SourceDaemon, What: "the local server is read-only", Label: "server read-only", Once: true},
		{Source: SourceDaemon, What: "the local server catches up", Label: "catching up", Once: true},
		{Source: SourceDaemon, What: "the local server has all that the owner's has", Label: "caught up", Once: true},
		{Source: SourceDaemon, What: "promoting the local server", Label: "promoting", Once: true},
		{Source: SourceDaemon, What: "the local server is writable", Label: "server writable", Once: true},
		{Source: SourceDaemon, What: "the local server follows the owner's", Label: "following", Once: true},
		{Source: SourceDaemon, What: "abort committed", Label: "committed: abort", News: true},
		{Source: SourceDaemon, What: "unbound", Label: "unbound", Once: true},
		{Source: SourceDaemon, What: "release committed", Label: "committed: release", News: true},
		{Source: SourceDaemon, What: "grant committed", Label: "committed: grant", News: true},
		{Source: SourceDaemon, What: "bound", Label: "bound", Once: true},
		{Source: SourceDaemon, What: "announced", Label: "announced", Once: true},
		{Source: SourceAddress, What: WhatAddrAdded, Label: "kernel: address added"},
		{Source: SourceAddress, What: WhatAddrRemoved, Label: "kernel: address removed"},
		{Source: SourceAddress},
		{Source: SourceARP, What: WhatAnnounced, Label: "wire: gratuitous ARP", Once: true},
		{Source: SourceARP, What: WhatAdvertised, Label: "wire: unsolicited NA", Once: true},
		{Source: SourceClient},
	}
}

// Line is one line of a time line.
type Line struct {
	At     time.Duration // since the beginning
	Node   string
	Label  string
	Detail string
}

// Lines picks the events that the milestones name. Events must be sorted by time.
func Lines(events []Event, zero time.Time, milestones []Milestone) []Line {
	var lines []Line
	seen := map[[2]string]bool{}
	for _, e := range events {
		for _, m := range milestones {
			if !m.matches(e) {
				continue
			}
			label := orDefault(m.Label, e.What)
			key := [2]string{e.Node, label}
			if m.News {
				key = [2]string{label, e.words()}
			}
			if !m.Once && !m.News || !seen[key] {
				lines = append(lines, Line{At: e.Time.Sub(zero), Node: e.Node, Label: label, Detail: e.words()})
			}
			seen[key] = true
			break
		}
	}
	return lines
}

// words returns what a person wants to read of an event's details: of a daemon's line the epoch and the reason.
func (e Event) words() string {
	var parts []string
	if epoch, ok := e.Attrs["epoch"]; ok {
		parts = append(parts, fmt.Sprintf("epoch %v", epoch))
	}
	if reason, ok := e.Attrs["reason"]; ok {
		parts = append(parts, fmt.Sprint(reason))
	}
	if len(parts) == 0 {
		return e.Detail
	}
	return strings.Join(parts, ": ")
}

// WriteLines prints a time line as a table.
func WriteLines(w io.Writer, lines []Line) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, l := range lines {
		// The last cell of a line is not part of a column, so details keep their length.
		fmt.Fprintf(tw, "%s\t%s\t  %s\n", millis(l.At), l.Node, strings.TrimSpace(pad(l.Label, 26)+l.Detail))
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print a time line: %w", err)
	}
	return nil
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-len(s), 1))
}

// millis writes a duration as milliseconds with one digit.
func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
