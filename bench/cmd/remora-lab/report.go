package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/report"
)

func reportCommand() *cobra.Command {
	var dir, baseline string
	var record bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Make the table and the plots of the runs that \"bench\" has kept",
		Long: `Reads runs.csv, prints the table, and writes it with the machine and the versions to table.md, the medians alone to
brief.md, and the plots as SVG. With --baseline it compares the ratios of Remora's medians to those of keepalived with the recorded ones, and exits
with status 1 when one has become worse by more than half, or when an aim is missed that needs no comparison; --record writes
the ratios down instead.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			runs, err := report.Read(filepath.Join(dir, runsFile))
			if err != nil {
				return err
			}
			if record {
				where, err := recordedMachine(dir)
				if err != nil {
					return err
				}
				return report.Record(baseline, runs, where)
			}
			err = writeReport(cmd.OutOrStdout(), dir, runs)
			if baseline != "" {
				err = errors.Join(err, report.Check(baseline, runs), report.CheckAims(runs))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "out", "bench/results", "directory of the figures")
	cmd.Flags().StringVar(&baseline, "baseline", "", "file with the recorded ratios")
	cmd.Flags().BoolVar(&record, "record", false, "record the ratios in the baseline file")
	return cmd
}

func writeReport(out io.Writer, dir string, runs []report.Run) error {
	lost, err := report.ReadLost(filepath.Join(dir, lostFile))
	if err != nil {
		return err
	}
	where, err := recordedMachine(dir)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "table.md"))
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	both := io.MultiWriter(out, f)
	_, err = fmt.Fprintf(both, "%s\n", where)
	err = errors.Join(err, report.WriteTable(both, runs, lost), f.Close())
	brief, created := os.Create(filepath.Join(dir, "brief.md"))
	if created == nil {
		created = errors.Join(report.WriteBrief(brief, runs), brief.Close())
	}
	return errors.Join(err, created, report.Plots(dir, runs))
}
