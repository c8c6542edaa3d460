package report

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// Plots writes gap.svg, the median gap of each system in each scenario on a logarithmic scale, and for each of Remora's profiles
// stacked phases: phases-SYSTEM.svg of the quick scenarios, and phases-long-SYSTEM.svg of those that begin with a wait.
func Plots(dir string, runs []Run) error {
	if err := plotGaps(filepath.Join(dir, "gap.svg"), runs); err != nil {
		return err
	}
	for _, sys := range Systems(runs) {
		if !strings.HasPrefix(sys, "remora-") {
			continue
		}
		for name, scenarios := range map[string][]string{
			"phases-":      {"mysqld-killed", "planned"},
			"phases-long-": {hung, "node-vanished", "node-vanished-leader"},
		} {
			if err := plotPhases(filepath.Join(dir, name+sys+".svg"), runs, sys, scenarios); err != nil {
				return err
			}
		}
	}
	return nil
}

// axis makes a plot whose horizontal axis names the scenarios.
func axis(title string, names []string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	p.Y.Label.Text = "ms"
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(3) // left, so that no viewer's font runs into the colours
	p.NominalX(names...)
	p.Add(plotter.NewGrid())
	return p
}

func plotGaps(path string, runs []Run) error {
	scenarios, systems := Scenarios(runs), Systems(runs)
	p := axis("Client's gap: median, new connections", scenarios)
	// A bar begins at 0, which a logarithmic axis does not have: the logarithms are drawn, and the ticks tell what they are.
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "1"}, {Value: 1, Label: "10"}, {Value: 2, Label: "100"},
		{Value: 3, Label: "1,000"}, {Value: 4, Label: "10,000"}, {Value: 5, Label: "100,000"}}
	width := vg.Points(min(9, 36/float64(len(systems)))) // those of one scenario stand apart from those of the next
	stars := false
	for i, sys := range systems {
		values := make(plotter.Values, len(scenarios))
		for j, sc := range scenarios {
			values[j] = math.Log10(max(Summarize(runs, sys, sc, gap).Median, 1))
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return fmt.Errorf("plot the gaps of %s: %w", sys, err)
		}
		bars.Color, bars.LineStyle.Width = plotutil.Color(i), 0
		bars.Offset = width * vg.Length(2*i-len(systems)+1) / 2
		p.Add(bars)
		p.Legend.Add(sys, bars)
		if l := starLabels(runs, sys, scenarios, values, bars.Offset); len(l.Labels) > 0 {
			p.Add(l)
			stars = true
		}
	}
	if stars {
		p.Legend.Add("* two nodes answer")
	}
	p.X.Tick.Label.Rotation, p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = math.Pi/7, text.XRight, text.YTop
	p.X.Max += 0.4
	p.Y.Min, p.Y.Max = 0, 5+0.25*float64(len(systems)) // with room for the legend
	p.Legend.XOffs = vg.Centimeter
	if err := p.Save(26*vg.Centimeter, 15*vg.Centimeter, path); err != nil {
		return fmt.Errorf("write the plot %s: %w", path, err)
	}
	return nil
}

// starLabels puts a star above each bar of a system in a scenario in which two nodes answer.
func starLabels(runs []Run, system string, scenarios []string, tops plotter.Values, across vg.Length) *plotter.Labels {
	l := &plotter.Labels{Offset: vg.Point{X: across}}
	for i, sc := range scenarios {
		if !doubled(runs, system, sc) {
			continue
		}
		l.XYs = append(l.XYs, plotter.XY{X: float64(i), Y: tops[i]})
		l.Labels = append(l.Labels, "*")
		l.TextStyle = append(l.TextStyle, text.Style{Font: font.From(plotter.DefaultFont, vg.Points(14)), Handler: plot.DefaultTextHandler,
			XAlign: text.XCenter, YAlign: text.YBottom})
	}
	return l
}

// phaseColor returns a colour of its own for each moment: there are more of them than soft colours.
func phaseColor(i int) color.Color {
	all := slices.Concat(plotutil.SoftColors, plotutil.DarkColors)
	return all[i%len(all)]
}

// plotPhases stacks the medians of the steps from one moment of the trace to the next one that was seen. Scenarios that the
// system was not put through are left out, and where none is left there is no plot.
func plotPhases(path string, runs []Run, system string, scenarios []string) error {
	scenarios = slices.DeleteFunc(slices.Clone(scenarios), func(sc string) bool { return Summarize(runs, system, sc, gap).N == 0 })
	if len(scenarios) == 0 {
		return nil
	}
	p := axis("Where the milliseconds go: "+system, scenarios)
	var below *plotter.BarChart
	for i, name := range PhaseNames() {
		values := make(plotter.Values, len(scenarios))
		for j, sc := range scenarios {
			values[j] = Step(runs, system, sc, i).Median
		}
		bars, err := plotter.NewBarChart(values, vg.Points(60))
		if err != nil {
			return fmt.Errorf("plot the phases of %s: %w", system, err)
		}
		bars.Color, bars.LineStyle.Width = phaseColor(i), 0
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add("until "+name, bars)
	}
	p.X.Max += 1 // room for the legend
	right := vg.Length(6*len(scenarios)) * vg.Centimeter
	p.Legend.XOffs = right - 2.7*vg.Centimeter
	if err := p.Save(right+4*vg.Centimeter, 11*vg.Centimeter, path); err != nil {
		return fmt.Errorf("write the plot %s: %w", path, err)
	}
	return nil
}

// Step sums up how long it took from the latest moment seen before phase i to phase i, over the runs that saw it.
func Step(runs []Run, system, scenario string, i int) Summary {
	return Summarize(runs, system, scenario, func(r Run) float64 {
		if r.Phases[i] == Missing {
			return Missing
		}
		before := 0.0
		order := r.order()
		for _, j := range order[:slices.Index(order, i)] {
			before = max(before, r.Phases[j])
		}
		return max(0, r.Phases[i]-before)
	})
}

// order returns the moments in the order in which they come. Where a group is handed over the grant is committed before the old owner
// begins to give up.
func (r Run) order() []int {
	const detected, unbound, proposed, committed = 0, 1, 2, 3
	order := []int{detected, unbound, proposed, committed}
	if p := r.Phases[proposed]; p != Missing && p < r.Phases[detected] {
		order = []int{proposed, committed, detected, unbound}
	}
	for i := len(order); i < Moments; i++ {
		order = append(order, i)
	}
	return order
}
