package peers

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// Teller is a system whose logs tell why it does what it does.
type Teller interface {
	// Alarms returns when the system took the server of a node for failed, from one moment to another, in the order of the
	// nodes and, for each, of time.
	Alarms(from, to time.Time) ([]Incident, error)
	// Why returns what the node's log says of why it lost the address at a moment, empty if it says nothing.
	Why(node string, lost time.Time) (string, error)
}

// Incident is something that befell a node, and why as the logs have it.
type Incident struct {
	Time   time.Time
	Node   string
	Reason string
}

// around is how far from a loss a daemon's words about it are looked for: it says why as it begins to give up, or, if the kernel's
// lease was sooner, as it wakes up.
const around = 2 * time.Second

// Alarms reads the logs of the daemons, each of which judges its own node's server.
func (r Remora) Alarms(from, to time.Time) ([]Incident, error) {
	events, err := r.Lab.DaemonEvents(from, to)
	var alarms []Incident
	for _, n := range r.Lab.Nodes() {
		for _, e := range events {
			if e.Node == n.Name && e.What == "server is failed" {
				alarms = append(alarms, Incident{Time: e.Time, Node: e.Node, Reason: reason(e)})
			}
		}
	}
	return alarms, err
}

// Why returns the reason for which the daemon gave up.
func (r Remora) Why(node string, lost time.Time) (string, error) {
	events, err := r.Lab.DaemonEvents(lost.Add(-around), lost.Add(around))
	return whyGaveUp(events, node, lost), err
}

// whyGaveUp finds the last word of giving up before a loss, or the first one after it.
func whyGaveUp(events []lab.Event, node string, lost time.Time) string {
	why := ""
	for _, e := range events {
		if e.Node != node || e.What != "giving up" {
			continue
		}
		if e.Time.After(lost) && why != "" {
			break
		}
		why = reason(e)
	}
	return why
}

func reason(e lab.Event) string {
	s, _ := e.Attrs["reason"].(string)
	return s
}

// keepalivedTime is how a line of keepalived's log begins.
const keepalivedTime = "Mon Jan _2 15:04:05 2006"

// logLine is a line of a log that has seconds.
type logLine struct {
	second time.Time
	text   string
}

// log reads the node's log.
func (k *Keepalived) log(node string) ([]logLine, error) {
	f, err := os.Open(k.file(k.Lab.Node(node), ".log"))
	if err != nil {
		return nil, fmt.Errorf("read the log of keepalived on %s: %w", node, err)
	}
	defer f.Close()
	var lines []logLine
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if l, ok := parseKeepalived(sc.Text()); ok {
			lines = append(lines, l)
		}
	}
	if err := sc.Err(); err != nil {
		return lines, fmt.Errorf("read the log of keepalived on %s: %w", node, err)
	}
	return lines, nil
}

// parseKeepalived parses "Sun Nov 29 14:38:21 2026: (vip) Entering FAULT STATE".
func parseKeepalived(line string) (logLine, bool) {
	if len(line) < len(keepalivedTime) {
		return logLine{}, false
	}
	at, err := time.ParseInLocation(keepalivedTime, line[:len(keepalivedTime)], time.Local)
	text, ok := strings.CutPrefix(line[len(keepalivedTime):], ": ")
	return logLine{at, text}, ok && err == nil
}

// Alarms reads keepalived's logs: an instance that enters the state FAULT takes its node's server for failed.
func (k *Keepalived) Alarms(from, to time.Time) ([]Incident, error) {
	var alarms []Incident
	for _, n := range k.Lab.Servers() {
		lines, err := k.log(n.Name)
		if err != nil {
			return nil, err
		}
		alarms = append(alarms, faults(lines, n.Name, from, to)...)
	}
	return alarms, nil
}

// faults finds the entries into FAULT; the line before one says why, if it is of the same second.
func faults(lines []logLine, node string, from, to time.Time) []Incident {
	var alarms []Incident
	for i, l := range lines {
		if l.second.Before(from) || l.second.After(to) || !strings.HasSuffix(l.text, "Entering FAULT STATE") {
			continue
		}
		a := Incident{Time: l.second, Node: node, Reason: "no reason is logged"}
		if i > 0 && lines[i-1].second.Equal(l.second) {
			a.Reason = lines[i-1].text
		}
		alarms = append(alarms, a)
	}
	return alarms
}

// Why returns what keepalived logged in the second of the loss and in the one before it.
func (k *Keepalived) Why(node string, lost time.Time) (string, error) {
	lines, err := k.log(node)
	return saidAt(lines, lost), err
}

func saidAt(lines []logLine, at time.Time) string {
	second := at.Truncate(time.Second)
	var said []string
	for _, l := range lines {
		if !l.second.Before(second.Add(-time.Second)) && !l.second.After(second) {
			said = append(said, l.text)
		}
	}
	return strings.Join(said, "; ")
}
