package lab

import (
	"slices"
	"time"
)

// Source says who saw an event.
type Source string

// The sources of events.
const (
	SourceLab     Source = "lab"     // the laboratory did it
	SourceAddress Source = "address" // the kernel said so
	SourceARP     Source = "arp"     // a frame of ARP or neighbour discovery on the bridge
	SourceDaemon  Source = "daemon"  // a daemon's log
	SourceClient  Source = "client"  // the client stream
)

// What of events that the laboratory itself looks for.
const (
	WhatAddrAdded   = "address added"
	WhatAddrRemoved = "address removed"
	WhatAnnounced   = "gratuitous ARP"
	WhatAdvertised  = "unsolicited NA"
	WhatFirstAnswer = "first answer"
	WhatLastAnswer  = "last answer"
)

// Event is one line of a time line.
type Event struct {
	Time   time.Time
	Source Source
	Node   string
	What   string
	Detail string
	// Attrs holds a daemon's log attributes.
	Attrs map[string]any
}

// note records an event; without a time it is now.
func (l *Lab) note(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.eventMu.Lock()
	l.events = append(l.events, e)
	l.eventMu.Unlock()
	if e.Source == SourceLab {
		l.opts.Log.Info(e.What, "node", e.Node)
	}
}

// Note adds an event of the caller's to the time line.
func (l *Lab) Note(node, what string) { l.note(Event{Source: SourceLab, Node: node, What: what}) }

// Events returns what the laboratory did and its observers saw from one moment to another, sorted by time.
func (l *Lab) Events(from, to time.Time) []Event {
	l.eventMu.Lock()
	defer l.eventMu.Unlock()
	return sortEvents(within(l.events, from, to))
}

func within(events []Event, from, to time.Time) []Event {
	var in []Event
	for _, e := range events {
		if !e.Time.Before(from) && !e.Time.After(to) {
			in = append(in, e)
		}
	}
	return in
}

func sortEvents(events []Event) []Event {
	slices.SortStableFunc(events, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return events
}
