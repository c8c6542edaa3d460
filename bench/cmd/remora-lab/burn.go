package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// burnPeriod is how long a processor's work and rest take together.
const burnPeriod = 100 * time.Millisecond

// burnCommand is what "load" starts for each processor.
func burnCommand() *cobra.Command {
	var cpu, percent int
	cmd := &cobra.Command{
		Use:    "burn",
		Short:  "Keep one processor busy until killed",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				return fmt.Errorf("keep to processor %d: %w", cpu, err)
			}
			work := burnPeriod * time.Duration(percent) / 100
			for {
				for start := time.Now(); time.Since(start) < work; {
				}
				time.Sleep(burnPeriod - work)
			}
		},
	}
	cmd.Flags().IntVar(&cpu, "cpu", 0, "number of the processor")
	cmd.Flags().IntVar(&percent, "percent", 95, "share of the time")
	return cmd
}

// cpuTime is what all processors have done so far, in ticks.
type cpuTime struct{ busy, all uint64 }

// readCPU reads the first line of /proc/stat.
func readCPU() (cpuTime, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTime{}, fmt.Errorf("see how busy the processors are: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return parseCPU(line)
}

// parseCPU reads "cpu user nice system idle iowait irq softirq steal ...". What a hypervisor takes away counts as busy: nobody
// here could have it.
func parseCPU(line string) (cpuTime, error) {
	const idle, iowait, counted = 3, 4, 8
	words := strings.Fields(line)
	if len(words) < 1+counted || words[0] != "cpu" {
		return cpuTime{}, fmt.Errorf("see how busy the processors are: %q is no line of /proc/stat", line)
	}
	var t cpuTime
	for i, w := range words[1 : 1+counted] { // the guests' times after them are in user and nice already
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			return cpuTime{}, fmt.Errorf("see how busy the processors are: %w", err)
		}
		t.all += n
		if i != idle && i != iowait {
			t.busy += n
		}
	}
	return t, nil
}

// percentSince is how busy all processors were since an earlier reading.
func (t cpuTime) percentSince(before cpuTime) float64 {
	if t.all == before.all {
		return 0
	}
	return 100 * float64(t.busy-before.busy) / float64(t.all-before.all)
}
