package report

import (
	"fmt"
	"io"
	"strings"
)

// WriteTable prints the client's gap of each system in each scenario as a Markdown table: median, least and greatest in
// milliseconds, and the number of runs. Then come the times of double answers and the verdicts.
func WriteTable(w io.Writer, runs []Run) error {
	systems := Systems(runs)
	var b strings.Builder
	heading := func(what string) {
		fmt.Fprintf(&b, "\n%s\n\n| | %s |\n|---|%s\n", what, strings.Join(systems, " | "), strings.Repeat("---|", len(systems)))
	}
	rows := func(figure func(Run) float64) {
		for _, sc := range Scenarios(runs) {
			var cells []string
			any := false
			for _, sys := range systems {
				s := Summarize(runs, sys, sc, figure)
				any = any || s.N > 0
				cells = append(cells, s.String())
			}
			if any {
				fmt.Fprintf(&b, "| %s | %s |\n", sc, strings.Join(cells, " | "))
			}
		}
	}
	heading("Client's gap, new connections: median (least to greatest), ms")
	rows(func(r Run) float64 { return r.Gap })
	heading("Longest wait of one attempt, ms")
	rows(func(r Run) float64 { return r.Longest })
	heading("Two nodes answered for the address, each asked by its own hardware address, ms (until the watch ended)")
	rows(func(r Run) float64 { return r.Double })
	heading("Frames announced")
	rows(func(r Run) float64 { return float64(r.Frames) })
	writeSteps(&b, runs)
	b.WriteString("\n" + strings.Join(Verdicts(runs), "\n") + "\n")
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

// writeSteps prints how long each step of Remora's takeovers took, from the step before it.
func writeSteps(b *strings.Builder, runs []Run) {
	fmt.Fprintf(b, "\nSteps of a takeover, each from the one before it: median, ms\n\n| | %s |\n|---|%s\n",
		strings.Join(PhaseNames(), " | "), strings.Repeat("---|", len(PhaseNames())))
	for _, sys := range Systems(runs) {
		if !strings.HasPrefix(sys, "remora-") {
			continue
		}
		for _, sc := range Scenarios(runs) {
			cells := make([]string, 0, len(PhaseNames()))
			for i := range PhaseNames() {
				cell := ""
				if s := Step(runs, sys, sc, i); s.N > 0 {
					cell = fmt.Sprintf("%.1f", s.Median)
				}
				cells = append(cells, cell)
			}
			fmt.Fprintf(b, "| %s, %s | %s |\n", sc, sys, strings.Join(cells, " | "))
		}
	}
}

// String is the summary as a cell of a table.
func (s Summary) String() string {
	if s.N == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f (%.1f to %.1f), n=%d", s.Median, s.Min, s.Max, s.N)
}

// Baseline is the system that the others are compared with.
const Baseline = "keepalived-10ms"

// Verdicts says for each scenario what is faster and what is slower than the baseline, with the ratio of the medians.
func Verdicts(runs []Run) []string {
	var out []string
	for _, sc := range Scenarios(runs) {
		base := Summarize(runs, Baseline, sc, gap)
		for _, sys := range Systems(runs) {
			s := Summarize(runs, sys, sc, gap)
			if !strings.HasPrefix(sys, "remora-") || s.N == 0 || base.N == 0 || base.Median <= 0 {
				continue
			}
			word := "faster"
			if s.Median > base.Median {
				word = "SLOWER"
			}
			out = append(out, fmt.Sprintf("- %s, %s: %s than %s: %.1f against %.1f ms, ratio %.2f", sc, sys, word, Baseline,
				s.Median, base.Median, s.Median/base.Median))
		}
	}
	return out
}

func gap(r Run) float64 { return r.Gap }
