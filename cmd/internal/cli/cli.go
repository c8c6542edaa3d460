package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/daemon"
	"github.com/remora-ha/remora/cmd/internal/mha"
)

// Exit codes of every command.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitUnreachable = 3
	ExitUnwell      = 4
)

const exitCodes = `Exit codes

  0  The command did what it was asked to.
  1  The operation failed or was refused. The reason is on standard error.
  2  The command line or the configuration is wrong. Nothing was touched.
  3  The daemon can not be reached: it does not run, listens on another socket, or did not answer in time.
  4  Only 'remora status --check': the daemon answered, and something is not as it should be.
`

// Env is what the command line takes from the outside. Tests put their own in place.
type Env struct {
	Args []string
	// Program is the name under which the binary was called. MHA's names make it MHA's hooks.
	Program string
	// Version is the release of the binary; empty when it was not set at build time.
	Version        string
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Run is daemon.Run.
	Run func(context.Context, daemon.Options) error
	// Host is the machine that 'run' and 'config check' look at.
	Host config.Host
}

// System returns the environment of the process. The version is what the linker was told, if anything.
func System(version string) Env {
	return Env{Args: os.Args[1:], Program: os.Args[0], Version: versionOf(version), Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Run: daemon.Run, Host: config.ThisHost()}
}

// Main runs one command and returns the exit code of the process.
func Main(ctx context.Context, env Env) int {
	root := newRoot(env)
	if h, ok := mha.HookOf(env.Program); ok {
		env.Args = append([]string{"mha", map[mha.Hook]string{mha.Failover: "failover", mha.OnlineChange: "online-change"}[h]}, env.Args...)
	}
	root.SetArgs(env.Args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var exit exitStatus
	if errors.As(err, &exit) {
		return int(exit)
	}
	code := exitCode(err)
	if code == ExitUnwell {
		return code // the output has said everything
	}
	printError(env.Stderr, err)
	var problems config.Problems
	if code == ExitUsage && !errors.As(err, &problems) {
		fmt.Fprintf(env.Stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// printError writes problems of a configuration as they are, one on each line, for editors to jump to.
func printError(w io.Writer, err error) {
	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(w, problems.Error())
		return
	}
	fmt.Fprintf(w, "remora: %v\n", err)
}

// ranError marks an error of a command that ran. Every other error that comes out of cobra is one of usage.
type ranError struct{ err error }

func (e *ranError) Error() string { return e.err.Error() }
func (e *ranError) Unwrap() error { return e.err }

// errUnwell ends 'status --check'.
var errUnwell = errors.New("something is not as it should be")

// usageError is what a command finds wrong with its own arguments.
type usageError string

func (e usageError) Error() string { return string(e) }

func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

func exitCode(err error) int {
	var ran *ranError
	var usage usageError
	var problems config.Problems
	switch {
	case err == nil:
		return ExitOK
	case !errors.As(err, &ran), errors.As(err, &usage), errors.As(err, &problems):
		return ExitUsage
	case errors.Is(err, control.ErrUnreachable):
		return ExitUnreachable
	case errors.Is(err, errUnwell):
		return ExitUnwell
	default:
		return ExitFailed
	}
}

// ran makes a function that cobra can call of one that does the work.
func ran(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return &ranError{err}
		}
		return nil
	}
}

func newRoot(env Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "remora",
		Short: "Keep a virtual IP address on the MySQL node that should serve it",
		Long: `Remora keeps a virtual IP address on the MySQL node that should serve it.

One daemon runs on every node ('remora run'). Each checks its own server, all agree on who owns each
address, and the owner binds and announces it. The other commands speak to the daemon of this machine.

First steps: 'remora pki init', 'remora pki issue NODE', 'remora config example', 'remora config check',
'remora run', 'remora status'.`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Version:                    env.Version,
	}
	root.SetVersionTemplate(versionText(env.Version))
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	root.AddGroup(&cobra.Group{ID: "daemon", Title: "The daemon:"}, &cobra.Group{ID: "client", Title: "Ask the daemon of this machine:"},
		&cobra.Group{ID: "setup", Title: "Set up:"}, &cobra.Group{ID: "more", Title: "More:"})
	a := &app{env: env}
	a.add(root, "daemon", a.runCommand(), a.recoverCommand())
	a.add(root, "client", a.statusCommand(), a.switchoverCommand(), a.promoteCommand(), a.rejoinCommand(), a.pauseCommand(true), a.pauseCommand(false), a.historyCommand())
	a.add(root, "client", a.mhaCommand())
	a.add(root, "setup", a.configCommand(), a.mysqlCommand(), a.pkiCommand())
	a.add(root, "more", a.versionCommand())
	root.AddCommand(&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitCodes})
	plain(root)
	return root
}

// plain drops the word [flags] from all usage lines: the flags are listed below them anyway.
func plain(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		plain(sub)
	}
}

// family makes a command that only holds others refuse what it does not know.
func family(c *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	c.AddCommand(subs...)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q for %q: did you mean %q?", args[0], c.CommandPath(), near[0])
		}
		return usagef("unknown command %q for %q", args[0], c.CommandPath())
	}
	c.SuggestionsMinimumDistance = 2
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

// none refuses arguments.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("'%s' takes no arguments, but got %q", c.CommandPath(), args[0])
	}
	return nil
}

// exactly and atMost bound the number of arguments, with a hint instead of a count.
func exactly(n int, hint string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s", hint)
		}
		return nil
	}
}

func atMost(n int, hint string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("%s", hint)
		}
		return nil
	}
}

// app is what the commands share.
type app struct {
	env    Env
	socket string
}

func (a *app) add(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = group
		root.AddCommand(c)
	}
}
