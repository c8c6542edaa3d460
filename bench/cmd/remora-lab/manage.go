package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/bench/lab"
)

func upCommand() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Raise a laboratory and leave it up",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := c.options()
			if err != nil {
				return err
			}
			return withLab(cmd.Context(), opts, func(l *lab.Lab) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
				defer cancel()
				if err := l.Up(ctx, lab.StreamOptions{}); err != nil {
					return err
				}
				l.Keep()
				howToLookAround(cmd.OutOrStdout(), l)
				return nil
			})
		},
	}
	c.flags(cmd)
	return cmd
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the laboratories on this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			infos, err := lab.List(lab.DefaultRoot())
			for _, i := range infos {
				state := "left by a crash"
				switch {
				case i.Alive:
					state = "in use"
				case i.Kept:
					state = "kept"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", i.Name, state, i.Dir)
			}
			return err
		},
	}
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove every laboratory that no running process uses, also those that were kept",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return remove(cmd, lab.SweepAll) },
	}
}

func sweepCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sweep",
		Short: "Remove what crashed runs left, and nothing that was kept on purpose",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return remove(cmd, lab.Sweep) },
	}
}

func remove(cmd *cobra.Command, sweep func(string) ([]string, error)) error {
	names, err := sweep(lab.DefaultRoot())
	for _, n := range names {
		fmt.Fprintln(cmd.OutOrStdout(), "removed", n)
	}
	return err
}

func execCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec HOST -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside a node, the client, the router or the switch of a laboratory",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := pick(name)
			if err != nil {
				return err
			}
			return lab.Exec(info, args[0], args[1:])
		},
	}
	cmd.Flags().StringVar(&name, "lab", "", "the laboratory, if there are several")
	return cmd
}

// pick returns the laboratory of that name, or the only one.
func pick(name string) (lab.Info, error) {
	infos, err := lab.List(lab.DefaultRoot())
	if err != nil {
		return lab.Info{}, err
	}
	for _, i := range infos {
		if i.Name == name {
			return i, nil
		}
	}
	switch {
	case name != "":
		return lab.Info{}, fmt.Errorf("there is no laboratory %s; \"remora-lab list\" shows them", name)
	case len(infos) == 0:
		return lab.Info{}, errors.New("no laboratory is up; \"remora-lab up\" raises one")
	case len(infos) > 1:
		return lab.Info{}, errors.New("several laboratories are up: choose with --lab; \"remora-lab list\" shows them")
	}
	return infos[0], nil
}
