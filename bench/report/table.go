package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// WriteTable prints the figures of each system in each scenario as Markdown tables: median, least and greatest in
// milliseconds, and the number of runs, beside the client's gap also what did not come about. Then come the steps of takeovers and
// the verdicts.
func WriteTable(w io.Writer, runs []Run, lost []Lost) error {
	systems := withLost(Systems(runs), lost, func(l Lost) string { return l.System })
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
	heading("Client's gap, new connections: median (least to greatest), ms; where the address did not move, until watching ended")
	writeGaps(&b, runs, lost, systems)
	b.WriteString(starNote(runs))
	heading("A client that keeps its connection, and opens another when it is gone: longest time without an answer, ms")
	rows(func(r Run) float64 { return r.Reconnect })
	heading("Fifty such clients: longest wait of any for an answer, reconnecting included, ms")
	rows(func(r Run) float64 { return r.Pool })
	writeCrowds(&b, runs)
	heading("Longest wait of one attempt, ms")
	rows(func(r Run) float64 { return r.Longest })
	heading("Two nodes answered for the address, each asked by its own hardware address, ms (until the watch ended)")
	rows(double)
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

// writeGaps prints the rows of the client's gap, with what did not come about.
func writeGaps(b *strings.Builder, runs []Run, lost []Lost, systems []string) {
	for _, sc := range withLost(Scenarios(runs), lost, func(l Lost) string { return l.Scenario }) {
		cells := make([]string, 0, len(systems))
		for _, sys := range systems {
			parts := []string{Summarize(runs, sys, sc, gap).String() + starOf(runs, sys, sc), outcome(runs, lost, sys, sc)}
			cells = append(cells, strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; "))
		}
		fmt.Fprintf(b, "| %s | %s |\n", sc, strings.Join(cells, " | "))
	}
}

// writeCrowds prints how long it took until the last of many addresses was answered, and how that grows.
func writeCrowds(b *strings.Builder, runs []Run) {
	counts, systems := crowds(runs), []string{}
	for _, sys := range Systems(runs) {
		if slices.ContainsFunc(runs, func(r Run) bool { return r.System == sys && r.Addresses > 0 }) {
			systems = append(systems, sys)
		}
	}
	if len(counts) == 0 {
		return
	}
	fmt.Fprintf(b, "\nMany addresses at once, the owner's server killed: from the fault to the last address answering, ms\n\n"+
		"| addresses | %s |\n|---|%s\n", strings.Join(systems, " | "), strings.Repeat("---|", len(systems)))
	of := func(sys string, n int) Summary {
		return Summarize(runs, sys, CrowdScenario(n), func(r Run) float64 { return r.Last })
	}
	for i, n := range counts {
		line := func(label string, cell func(string) string) {
			cells := make([]string, 0, len(systems))
			for _, sys := range systems {
				cells = append(cells, cell(sys))
			}
			fmt.Fprintf(b, "| %s | %s |\n", label, strings.Join(cells, " | "))
		}
		line(strconv.Itoa(n), func(sys string) string {
			s := of(sys, n)
			if lost := attempts(runs, sys, n) - s.N; lost > 0 {
				return strings.TrimSpace(fmt.Sprintf("%v; %d did not end in time", s, lost))
			}
			return s.String()
		})
		if i == 0 {
			continue
		}
		line(fmt.Sprintf("%d against %d", n, counts[i-1]), func(sys string) string {
			now, before := of(sys, n), of(sys, counts[i-1])
			if now.N == 0 || before.N == 0 {
				return ""
			}
			return fmt.Sprintf("x %.1f", now.Median/before.Median)
		})
	}
}

// CrowdScenario returns the name of the scenario in which n addresses move at once.
func CrowdScenario(n int) string { return fmt.Sprintf("addresses-%d", n) }

// crowds returns how many addresses moved at once, from few to many.
func crowds(runs []Run) (counts []int) {
	for _, r := range runs {
		if r.Addresses > 0 && !slices.Contains(counts, r.Addresses) {
			counts = append(counts, r.Addresses)
		}
	}
	slices.Sort(counts)
	return counts
}

// attempts counts the runs of a system in which n addresses moved, or were to.
func attempts(runs []Run, system string, n int) (count int) {
	for _, r := range runs {
		if r.System == system && r.Addresses == n {
			count++
		}
	}
	return count
}

// WriteBrief prints the medians of the client's gap, and for how long two nodes answered where that was looked at, as a table
// for a page that has no room for more.
func WriteBrief(w io.Writer, runs []Run) error {
	systems := Systems(runs)
	var b strings.Builder
	fmt.Fprintf(&b, "| client's gap, median, ms | %s |\n|---|%s\n", strings.Join(systems, " | "), strings.Repeat("---|", len(systems)))
	row := func(label, scenario string, figure func(Run) float64, cell func(system string, s Summary) string) {
		var cells []string
		any := false
		for _, sys := range systems {
			s := Summarize(runs, sys, scenario, figure)
			if s.N == 0 {
				cells = append(cells, "")
				continue
			}
			any = true
			cells = append(cells, cell(sys, s))
		}
		if any {
			fmt.Fprintf(&b, "| %s | %s |\n", label, strings.Join(cells, " | "))
		}
	}
	for _, sc := range Scenarios(runs) {
		row(sc, sc, gap, func(sys string, s Summary) string { return fmt.Sprintf("%.1f%s", s.Median, starOf(runs, sys, sc)) })
	}
	for _, sc := range Scenarios(runs) {
		row(sc+": two nodes answer, at most", sc, double, func(_ string, s Summary) string { return fmt.Sprintf("%.1f", s.Max) })
	}
	b.WriteString(starNote(runs))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print the brief table: %w", err)
	}
	return nil
}

// doubled reports whether two nodes were ever seen to answer for the address in a scenario. The gap of such a system is none that
// a takeover has ended: clients went on to reach the old owner.
func doubled(runs []Run, system, scenario string) bool {
	return Summarize(runs, system, scenario, double).Max > 0
}

// starOf marks a gap during which two nodes answered. The backslash is for Markdown.
func starOf(runs []Run, system, scenario string) string {
	if doubled(runs, system, scenario) {
		return ` \*`
	}
	return ""
}

// starNote says below a table what its stars mean, if it has any.
func starNote(runs []Run) string {
	if !slices.ContainsFunc(runs, func(r Run) bool { return r.Double > 0 }) {
		return ""
	}
	return "\n" + `\* Two nodes answer: the old owner goes on beside the new one, and clients notice no gap as long as they reach one of the two.` + "\n"
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

// Baseline is the system to which [Ratios] compares: keepalived as fast as it can sanely go.
const Baseline = "keepalived-10ms"

// best returns keepalived at its best in a scenario, which is another configuration for a server that hangs than for one that
// was killed: of the systems whose names begin with "keepalived-" the one with the least median gap.
func best(runs []Run, scenario string) (system string, least Summary) {
	for _, sys := range Systems(runs) {
		if s := Summarize(runs, sys, scenario, gap); strings.HasPrefix(sys, "keepalived-") && s.N > 0 && (least.N == 0 || s.Median < least.Median) {
			system, least = sys, s
		}
	}
	return system, least
}

// Verdicts says for each scenario what is faster and what is slower than keepalived at its best, with the ratio of the medians.
func Verdicts(runs []Run) []string {
	var out []string
	for _, sc := range Scenarios(runs) {
		peer, base := best(runs, sc)
		for _, sys := range Systems(runs) {
			s := Summarize(runs, sys, sc, gap)
			if !strings.HasPrefix(sys, "remora-") || s.N == 0 || base.N == 0 || base.Median <= 0 {
				continue
			}
			word := "faster"
			if s.Median > base.Median {
				word = "SLOWER"
			}
			line := fmt.Sprintf("- %s, %s: %s than %s: %.1f against %.1f ms, ratio %.2f", sc, sys, word, peer, s.Median, base.Median, s.Median/base.Median)
			if doubled(runs, peer, sc) {
				line += ", where two nodes answer"
			}
			out = append(out, line)
		}
	}
	return out
}

func gap(r Run) float64 { return r.Gap }

func double(r Run) float64 { return r.Double }
