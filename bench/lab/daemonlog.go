package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// maxLogLine is the longest line of a daemon's log that is read, in bytes.
const maxLogLine = 1 << 20

// DaemonEvents returns what the daemons logged from one moment to another, sorted by time. Their time stamps are wall
// clock readings of this machine, the same clock as that of the observers.
func (l *Lab) DaemonEvents(from, to time.Time) ([]Event, error) {
	var all []Event
	var errs []error
	for _, n := range l.nodes {
		f, err := os.Open(n.LogPath())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read the log of %s: %w", n.Name, err))
			continue
		}
		events, err := readLog(f, n.Name)
		f.Close()
		all = append(all, within(events, from.Round(0), to.Round(0))...)
		errs = append(errs, err)
	}
	return sortEvents(all), errors.Join(errs...)
}

// readLog reads a daemon's log. Lines that are no JSON, a panic say, become events without a time of their own: they
// take that of the line before.
func readLog(r io.Reader, node string) ([]Event, error) {
	var events []Event
	var last time.Time
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLogLine)
	for sc.Scan() {
		e, ok := parseLogLine(sc.Bytes())
		if !ok {
			e = Event{Time: last, What: sc.Text()}
		}
		last = e.Time
		e.Source, e.Node = SourceDaemon, node
		events = append(events, e)
	}
	if err := sc.Err(); err != nil {
		return events, fmt.Errorf("read the log of %s: %w", node, err)
	}
	return events, nil
}

// parseLogLine parses a line as log/slog's JSON handler writes it.
func parseLogLine(line []byte) (Event, bool) {
	attrs := map[string]any{}
	if json.Unmarshal(line, &attrs) != nil {
		return Event{}, false
	}
	text, _ := attrs["time"].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return Event{}, false
	}
	msg, _ := attrs["msg"].(string)
	delete(attrs, "time")
	delete(attrs, "msg")
	delete(attrs, "level")
	return Event{Time: at, What: msg, Detail: attrText(attrs), Attrs: attrs}, true
}

// attrText writes attributes as "key=value", sorted by key.
func attrText(attrs map[string]any) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		parts = append(parts, fmt.Sprintf("%s=%v", k, attrs[k]))
	}
	return strings.Join(parts, " ")
}
