package report

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Cause says why there is no figure of a run.
type Cause string

// The causes.
const (
	// NotStarted: the system did not serve within its time.
	NotStarted Cause = "did not start"
	// NotMeasured: what the scenario needs did not come about, measuring failed, or the turn had ended with a run before it.
	NotMeasured Cause = "not measured"
)

// Lost is a run that was to be done and did not come about.
type Lost struct {
	// At is when that was seen, in whole seconds.
	At               time.Time
	System, Scenario string
	Cause            Cause
	// Text says more, in a line.
	Text string
}

var lostHeader = []string{"at", "system", "scenario", "cause", "text"}

// AppendLost adds a lost run to the file, which it makes if there is none.
func AppendLost(path string, l Lost) error {
	return appendRow(path, lostHeader, []string{l.At.UTC().Format(time.RFC3339), l.System, l.Scenario, string(l.Cause), l.Text})
}

// ReadLost returns the lost runs in a file, none if there is no file.
func ReadLost(path string) ([]Lost, error) {
	rows, err := readRows(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lost runs in %s: %w", path, err)
	}
	if len(rows) == 0 || !slices.Equal(rows[0], lostHeader) {
		return nil, fmt.Errorf("read the lost runs in %s: the columns are not %v", path, lostHeader)
	}
	var lost []Lost
	for i, row := range rows[1:] {
		at, err := time.Parse(time.RFC3339, row[0])
		if err != nil {
			return nil, fmt.Errorf("read lost run %d in %s: %w", i+1, path, err)
		}
		lost = append(lost, Lost{At: at, System: row[1], Scenario: row[2], Cause: Cause(row[3]), Text: row[4]})
	}
	return lost, nil
}

// withLost adds the names that only lost runs have.
func withLost(names []string, lost []Lost, of func(Lost) string) []string {
	for _, l := range lost {
		if n := of(l); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// outcome says of a system in a scenario in how many runs the address did not move, and how many runs were lost, or nothing.
func outcome(runs []Run, lost []Lost, system, scenario string) string {
	n, stayed := 0, 0
	for _, r := range runs {
		if r.System == system && r.Scenario == scenario {
			if n++; !r.Moved {
				stayed++
			}
		}
	}
	var parts []string
	if stayed > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d did not move", stayed, n))
	}
	for _, c := range []Cause{NotStarted, NotMeasured} {
		count := 0
		for _, l := range lost {
			if l.System == system && l.Scenario == scenario && l.Cause == c {
				count++
			}
		}
		if count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count, c))
		}
	}
	return strings.Join(parts, ", ")
}
