package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	// tolerated is by how much a ratio may exceed the recorded one before it counts as a loss, and leastLoss how many
	// milliseconds the median must have lost by that as well: the medians of few runs of some ms vary as much.
	tolerated = 1.5
	leastLoss = 3.0
)

// Ratios returns Remora's median gaps divided by those of the baseline in the same runs, by "system scenario"; not where a server
// hangs, of which [CheckAims] says more.
func Ratios(runs []Run) map[string]float64 {
	ratios := map[string]float64{}
	for _, sc := range Scenarios(runs) {
		if sc == hung {
			continue
		}
		base := Summarize(runs, Baseline, sc, gap)
		for _, sys := range Systems(runs) {
			if s := Summarize(runs, sys, sc, gap); strings.HasPrefix(sys, "remora-") && s.N > 0 && base.Median > 0 {
				ratios[sys+" "+sc] = s.Median / base.Median
			}
		}
	}
	return ratios
}

// recorded is what a file of ratios holds.
type recorded struct {
	// Date is the day of the last run, Runs the least number of runs that a ratio rests on, Machine what they were measured on.
	Date    string             `json:"date"`
	Runs    int                `json:"runs"`
	Machine string             `json:"machine"`
	Ratios  map[string]float64 `json:"ratios"`
}

// Record writes the ratios of the runs to a file, and what the runs were measured on.
func Record(path string, runs []Run, machine string) error {
	r := recorded{Machine: machine, Ratios: Ratios(runs)}
	for key := range r.Ratios {
		system, scenario, _ := strings.Cut(key, " ")
		for _, s := range []string{system, Baseline} {
			if n := Summarize(runs, s, scenario, gap).N; r.Runs == 0 || n < r.Runs {
				r.Runs = n
			}
		}
	}
	for _, run := range runs {
		r.Date = max(r.Date, run.At.UTC().Format(time.DateOnly))
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("record the ratios: %w", err)
	}
	return nil
}

// readRatios returns the ratios in a file.
func readRatios(path string) (map[string]float64, error) {
	text, err := os.ReadFile(path)
	var r recorded
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && len(r.Ratios) == 0 {
		err = errors.New("there are none: record them with \"make bench-baseline\"")
	}
	if err != nil {
		return nil, fmt.Errorf("read the recorded ratios in %s: %w", path, err)
	}
	return r.Ratios, nil
}

// Check compares the ratios of the runs with those in a file, and returns an error for each real loss. A ratio that was
// recorded and can not be computed is a loss too: a scenario that does not run any more hides what it would show.
func Check(path string, runs []Run) error {
	before, err := readRatios(path)
	if err != nil {
		return err
	}
	now := Ratios(runs)
	var errs []error
	for key, was := range before {
		is, ok := now[key]
		_, scenario, _ := strings.Cut(key, " ")
		base := Summarize(runs, Baseline, scenario, gap).Median
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: was measured once (ratio %.2f to %s), and now is not", key, was, Baseline))
		case is > tolerated*was && (is-was)*base > leastLoss:
			errs = append(errs, fmt.Errorf("%s: ratio to %s is %.2f, was %.2f", key, Baseline, is, was))
		}
	}
	return errors.Join(errs...)
}
