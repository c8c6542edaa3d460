// Package report keeps the figures of a benchmark as CSV, sums them up as a table and as plots, and compares them with
// recorded ones.
package report

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Run is what was seen of one run of one scenario with one system. Times are milliseconds; Missing marks what was not seen.
type Run struct {
	// At is when the run ended, in whole seconds.
	At               time.Time
	System, Scenario string
	// Moved says whether another node served the address within the system's patience.
	Moved bool
	// Gap is the client's longest time without an answer, Longest the longest wait of one attempt.
	Gap, Longest float64
	// Double is for how long two nodes answered for the address, each asked by its own hardware address.
	Double float64
	// Addresses is how many addresses moved, and Last when the last of them was answered by another node, counted from the
	// fault; 0 and Missing in the scenarios that look at one address.
	Addresses int
	Last      float64
	// Reconnect is the longest time without an answer of a client that keeps its connection, Pool the longest wait for an
	// answer of any of fifty.
	Reconnect, Pool float64
	// Frames counts the announcements on the wire, Failed and Connections the client's attempts.
	Frames, Failed, Connections int
	// Phases are the moments of the trace, counted from the fault, in the order of PhaseNames.
	Phases [Moments]float64
}

// Missing stands for a moment that was not seen.
const Missing = -1

var phaseNames = [...]string{"detected", "unbound", "proposed", "committed", "granted", "bound", "fence open", "first frame", "first answer"}

// Moments is how many moments a takeover has.
const Moments = len(phaseNames)

// PhaseNames returns the moments of a takeover in their order: the fault was noticed; the old owner's address is gone
// and was read back; the grant was handed to Raft; it is committed, and known to the first node; known to the new owner; bound there;
// the kernel's fence lets traffic pass there; the first frame is on the wire; the client has an answer.
func PhaseNames() []string { return phaseNames[:] }

// The columns of a file: those before the moments, and those of the moments in files that were written before there were so many,
// with the names of today.
var (
	figureColumns = []string{"at", "system", "scenario", "moved", "gap_ms", "longest_ms", "double_ms", "addresses", "last_ms",
		"reconnect_ms", "pool_ms", "frames", "failed", "connections"}
	formerPhases = []string{"detected", "unbound", "granted", "bound", "announced", "answered"}
	formerNames  = map[string]string{"granted": "committed", "announced": "first frame", "answered": "first answer"}
)

func header() []string {
	columns := slices.Clone(figureColumns)
	for _, p := range phaseNames {
		columns = append(columns, strings.ReplaceAll(p, " ", "_"))
	}
	return columns
}

// phasesIn returns the moments that the columns of a file with such a header are of, in their order.
func phasesIn(head []string) ([]string, error) {
	if slices.Equal(head, header()) {
		return phaseNames[:], nil
	}
	if !slices.Equal(head, slices.Concat(figureColumns, formerPhases)) {
		return nil, fmt.Errorf("the columns are not %v: begin a new file", header())
	}
	var names []string
	for _, p := range formerPhases {
		names = append(names, cmp.Or(formerNames[p], p))
	}
	return names, nil
}

func (r Run) row() []string {
	ms := func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
	row := []string{r.At.UTC().Format(time.RFC3339), r.System, r.Scenario, strconv.FormatBool(r.Moved), ms(r.Gap),
		ms(r.Longest), ms(r.Double), strconv.Itoa(r.Addresses), ms(r.Last), ms(r.Reconnect), ms(r.Pool), strconv.Itoa(r.Frames), strconv.Itoa(r.Failed), strconv.Itoa(r.Connections)}
	for _, p := range r.Phases {
		row = append(row, ms(p))
	}
	return row
}

// Append adds a run to the file, which it makes if there is none. A file of before gets the columns of today.
func Append(path string, r Run) error {
	if err := renew(path); err != nil {
		return err
	}
	return appendRow(path, header(), r.row())
}

// renew writes a file that has the columns of before anew.
func renew(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep a run: %w", err)
	}
	head, err := csv.NewReader(f).Read()
	f.Close()
	if err == nil && slices.Equal(head, header()) {
		return nil
	}
	runs, err := Read(path)
	if err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep a run: %w", err)
	}
	for _, r := range runs {
		if err := appendRow(fresh, header(), r.row()); err != nil {
			return err
		}
	}
	if len(runs) == 0 {
		return os.Remove(path)
	}
	return os.Rename(fresh, path)
}

// appendRow adds a row to a file, after the header if it makes the file.
func appendRow(path string, header, row []string) error {
	_, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep a run: %w", err)
	}
	w := csv.NewWriter(f)
	if fresh {
		err = w.Write(header)
	}
	err = errors.Join(err, w.Write(row))
	w.Flush()
	if err := errors.Join(err, w.Error(), f.Close()); err != nil {
		return fmt.Errorf("keep a run in %s: %w", path, err)
	}
	return nil
}

// Read returns the runs in a file.
func Read(path string) ([]Run, error) {
	rows, err := readRows(path)
	if err != nil {
		return nil, fmt.Errorf("read the runs in %s: %w", path, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("read the runs in %s: the file is empty: begin a new one", path)
	}
	phases, err := phasesIn(rows[0])
	if err != nil {
		return nil, fmt.Errorf("read the runs in %s: %w", path, err)
	}
	runs := make([]Run, 0, len(rows)-1)
	for i, row := range rows[1:] {
		r, err := parse(row, phases)
		if err != nil {
			return nil, fmt.Errorf("read run %d in %s: %w", i+1, path, err)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func readRows(path string) ([][]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return csv.NewReader(f).ReadAll()
}

// parse reads a row whose last columns are of these moments.
func parse(row, phases []string) (r Run, err error) {
	r.System, r.Scenario = row[1], row[2]
	var errs []error
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		errs = append(errs, err)
		return v
	}
	r.At, err = time.Parse(time.RFC3339, row[0])
	errs = append(errs, err)
	r.Moved, err = strconv.ParseBool(row[3])
	errs = append(errs, err)
	r.Gap, r.Longest, r.Double, r.Addresses = number(row[4]), number(row[5]), number(row[6]), int(number(row[7]))
	r.Last, r.Reconnect, r.Pool = number(row[8]), number(row[9]), number(row[10])
	r.Frames, r.Failed, r.Connections = int(number(row[11])), int(number(row[12])), int(number(row[13]))
	for i, name := range phaseNames {
		r.Phases[i] = Missing
		if at := slices.Index(phases, name); at >= 0 {
			r.Phases[i] = number(row[len(figureColumns)+at])
		}
	}
	return r, errors.Join(errs...)
}

// Summary is the median and the extremes of some runs.
type Summary struct {
	N                int
	Median, Min, Max float64
}

// Summarize sums up one figure of the runs of a system and a scenario; runs for which it is Missing do not count.
func Summarize(runs []Run, system, scenario string, figure func(Run) float64) Summary {
	var vs []float64
	for _, r := range runs {
		if v := figure(r); r.System == system && r.Scenario == scenario && v != Missing {
			vs = append(vs, v)
		}
	}
	if len(vs) == 0 {
		return Summary{}
	}
	slices.Sort(vs)
	n := len(vs)
	return Summary{N: n, Median: (vs[(n-1)/2] + vs[n/2]) / 2, Min: vs[0], Max: vs[n-1]}
}

// Systems and Scenarios return the names that occur, in the order of their first occurrence.
func Systems(runs []Run) []string { return names(runs, func(r Run) string { return r.System }) }

// Scenarios returns the names of the scenarios that occur.
func Scenarios(runs []Run) []string { return names(runs, func(r Run) string { return r.Scenario }) }

func names(runs []Run, of func(Run) string) (out []string) {
	for _, r := range runs {
		if n := of(r); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
