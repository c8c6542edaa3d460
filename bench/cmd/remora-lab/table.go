package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// writeTable prints the figures for people.
func writeTable(w io.Writer, results []result, o gapOptions) error {
	fmt.Fprintf(w, "Time without an answer at the address, as a client sees it (profile %s, a new connection every %v), in ms:\n\n",
		o.profile, o.interval)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "scenario\truns\tmedian\tmin\tmax\tlimit\tlongest wait of one (median / max)\tfailed\t")
	for _, r := range results {
		gaps, waits := r.gaps(), r.waits()
		if len(gaps) == 0 {
			fmt.Fprintf(tw, "%s\t0\t\t\t\t\tdid not come about\t\t\n", r.Title)
			continue
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\t%s / %s\t%d of %d\t\n", r.Title, len(gaps), ms(median(gaps)), ms(slices.Min(gaps)),
			ms(slices.Max(gaps)), r.limitText(), ms(median(waits)), ms(slices.Max(waits)), r.failed(), r.total())
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	return nil
}

// judge returns an error for each limit that was exceeded.
func judge(results []result, check bool) error {
	if !check {
		return nil
	}
	var errs []error
	var calm result
	for _, r := range results {
		if r.Name == undisturbed {
			calm = r
		}
		errs = append(errs, r.judge(calm))
	}
	return errors.Join(errs...)
}

func (r result) judge(calm result) error {
	switch {
	case len(r.Samples) == 0:
		if r.Optional {
			return nil // it is printed as such
		}
		return fmt.Errorf("%s: not one run came about", r.Name)
	case r.Limit > 0 && median(r.gaps()) > r.Limit:
		return fmt.Errorf("%s: the median gap is %s ms, the limit %s ms", r.Name, ms(median(r.gaps())), ms(r.Limit))
	case !r.NoImpact:
		return nil
	case r.failed() > 0:
		return fmt.Errorf("%s: %d connections failed, none may", r.Name, r.failed())
	}
	// One machine runs everything, so single waits scatter: what usually is the longest must not be longer than what
	// happens undisturbed too, but for the work of an election on the same cores.
	const slack = 5 * time.Millisecond
	if got, usual := median(r.waits()), longest(calm.waits()); got > usual+slack {
		return fmt.Errorf("%s: the longest wait of a connection is %s ms (median of the runs), undisturbed at most %s ms",
			r.Name, ms(got), ms(usual))
	}
	return nil
}

func (r result) gaps() []time.Duration {
	return collect(r.Samples, func(s sample) time.Duration { return s.Gap })
}
func (r result) waits() []time.Duration {
	return collect(r.Samples, func(s sample) time.Duration { return s.Longest })
}

func (r result) failed() (n int) {
	for _, s := range r.Samples {
		n += s.Failed
	}
	return n
}

func (r result) total() (n int) {
	for _, s := range r.Samples {
		n += s.Total
	}
	return n
}

func (r result) limitText() string {
	if r.Limit == 0 {
		return ""
	}
	return "<= " + ms(r.Limit)
}

func collect(samples []sample, field func(sample) time.Duration) []time.Duration {
	var ds []time.Duration
	for _, s := range samples {
		ds = append(ds, field(s))
	}
	return ds
}

func median(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return (ds[(len(ds)-1)/2] + ds[len(ds)/2]) / 2
}

func longest(ds []time.Duration) (most time.Duration) {
	for _, d := range ds {
		most = max(most, d)
	}
	return most
}

// ms writes a duration in milliseconds with one digit.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
