package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/daemon"
	"github.com/remora-ha/remora/cmd/internal/mha"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
)

// Hard limits of the hooks. MHA has none of its own: a hook that hangs holds the failover. One that moves the address gives
// up later than the arbiter, whose word on what became of it is worth more than none.
const (
	moveLimit  = core.AdviceLimit + 5*time.Second
	askLimit   = 5 * time.Second
	checkLimit = 950 * time.Millisecond
)

// exitStatus ends the process with a code of its own; the output has said everything.
type exitStatus mha.Exit

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// status makes an error of a code, nil of 0.
func status(e mha.Exit) error {
	if e == mha.OK {
		return nil
	}
	return exitStatus(e)
}

// mhaCommand is the family of MHA's hooks. They parse their arguments themselves: MHA's are not cobra's.
func (a *app) mhaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "mha COMMAND",
		Short: "Take the place of MHA's scripts",
		Long: `Take the place of the scripts that MHA 0.58 calls, see docs/mha.md. Write these commands into app1.cnf, or make
symbolic links named master_ip_failover and master_ip_online_change to this binary. They take MHA's own arguments, read
nothing from standard input, and end by themselves. TEST_MODE=1 or --dry-run only says what would be done.`,
	}
	hook := func(use, short string, run func(ctx context.Context, args []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, DisableFlagParsing: true,
			RunE: ran(func(cmd *cobra.Command, args []string) error {
				if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
					return cmd.Help()
				}
				return run(cmd.Context(), args)
			})}
	}
	return family(c,
		hook("failover ARGUMENTS", "Be master_ip_failover_script", func(ctx context.Context, args []string) error { return a.hook(ctx, mha.Failover, args) }),
		hook("online-change ARGUMENTS", "Be master_ip_online_change_script", func(ctx context.Context, args []string) error { return a.hook(ctx, mha.OnlineChange, args) }),
		hook("secondary-check ARGUMENTS", "Be secondary_check_script", a.secondaryCheck),
		hook("shutdown ARGUMENTS", "Be shutdown_script", a.shutdownHook),
		hook("report ARGUMENTS", "Be report_script", a.reportHook),
		a.mhaCheckCommand())
}

// say writes one line for MHA's log.
func (a *app) say(format string, args ...any) {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	fmt.Fprintf(a.env.Stdout, "remora: %s\n", text)
}

// adviser returns the daemon that the arguments name.
func (a *app) adviser(own mha.Own) *control.Client {
	if own.Endpoint != "" {
		return control.NewClient(func(ctx context.Context) (net.Conn, error) {
			c, err := consensus.DialHook(ctx, own.Endpoint, consensus.TLSFiles{CA: own.CA, Cert: own.Cert, Key: own.Key})
			if err != nil {
				return nil, fmt.Errorf("%w: %w", control.ErrUnreachable, err)
			}
			return c, nil
		})
	}
	return control.Local(cmp.Or(own.Socket, a.env.Getenv("REMORA_SOCKET"), config.DefaultSocket))
}

// caller says who calls, for the history.
func caller(what string) string {
	who, host := "somebody", "an unknown host"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return fmt.Sprintf("MHA's %s, %s on %s", what, who, host)
}

// hook is one call of one of the two hooks that move the address.
func (a *app) hook(ctx context.Context, h mha.Hook, args []string) error {
	call, err := mha.Parse(args, a.env.Getenv("TEST_MODE"))
	if err != nil {
		a.say("%s: %v", h, err)
		return exitStatus(mha.Abort)
	}
	if len(call.Ignored) > 0 {
		a.say("%s: ignored %s", h, strings.Join(call.Ignored, " "))
	}
	req := control.AdviceRequest{Command: string(call.Command), Online: h == mha.OnlineChange, Group: call.Own.Group,
		Old: control.DBServer{Host: call.Old.Host, IP: call.Old.IP}, New: control.DBServer{Host: call.New.Host, IP: call.New.IP},
		By: caller(h.String()), DryRun: call.DryRun}
	limit := moveLimit
	switch call.Command {
	case mha.StopSSH:
		req.Command = string(mha.Stop)
	case mha.Status:
		limit = askLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := a.adviser(call.Own).Advise(ctx, req)
	if err != nil {
		a.say("%s %s: not carried out: %v", h, call.Command, err)
		return exitStatus(mha.Abort)
	}
	return a.tell(h, call, r)
}

// tell writes what became of a call and returns its exit code.
func (a *app) tell(h mha.Hook, call mha.Call, r control.AdviceResult) error {
	where := fmt.Sprintf("%s is in epoch %d, owner %s (%d ms)", cmp.Or(r.Group, "the group"), r.Epoch, cmp.Or(r.Owner, "nobody"), r.TookMS)
	if r.Outcome == control.AdviceRefused {
		a.say("%s %s refused: %s; %s", h, call.Command, r.Text, where)
		return exitStatus(mha.Abort)
	}
	switch {
	case call.DryRun:
		a.say("%s %s of %s: would be asked for, nothing was done; %s", h, call.Command, cmp.Or(r.Node, "the group"), where)
	case call.Command == mha.Start:
		return status(a.tellStart(h, r, where))
	case call.Command == mha.Status:
		a.say("%s status: ok; %s", h, where)
	default:
		a.say("%s %s: %s has given the address up, proven; %s", h, call.Command, r.Node, where)
	}
	return nil
}

func (a *app) tellStart(h mha.Hook, r control.AdviceResult, where string) mha.Exit {
	switch r.Outcome {
	case control.AdviceSeen:
		a.say("%s start: %s serves, seen on the link; %s", h, r.Node, where)
		return mha.Seen.Of()
	case control.AdviceUnseen:
		a.say("%s start: %s serves and has announced itself, but no peer has confirmed it on the link in time; %s", h, r.Node, where)
		return mha.Unseen.Of()
	case control.AdviceUnfit:
		a.say("%s start: WARNING: %s; MHA may go on, the group's policy brings the address to the writable node; %s", h, r.Text, where)
		return mha.Unfit.Of()
	}
	return mha.Refused.Of()
}

// secondaryCheck asks the daemons whether they see the primary's server answer.
func (a *app) secondaryCheck(ctx context.Context, args []string) error {
	o := mha.ParseOptions(args)
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	r, err := a.adviser(o.Own()).AskServer(ctx, control.ServerRequest{Server: control.DBServer{Host: o["master_host"], IP: o["master_ip"]}})
	if err != nil {
		a.say("secondary check: can not be made: %v", err)
		return exitStatus(mha.CheckUnable)
	}
	verdict := mha.Verdict(len(r.Answered), len(r.Silent), len(r.Unreachable))
	a.say("secondary check of %s: %s; answers to %s; silent to %s; could not be asked: %s", r.Node, verdict,
		list(r.Answered), list(r.Silent), list(r.Unreachable))
	return status(verdict.Exit())
}

func list(names []string) string { return cmp.Or(strings.Join(names, ", "), "nobody") }

// shutdownHook fences the old primary through its lease and looks whether its server can do harm.
func (a *app) shutdownHook(ctx context.Context, args []string) error {
	o := mha.ParseOptions(args)
	command := mha.Command(o["command"])
	if command == mha.Status {
		a.say("shutdown status: ok")
		return nil
	}
	server := control.DBServer{Host: o["host"], IP: o["ip"]}
	ctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	client := a.adviser(o.Own())
	r, err := client.Advise(ctx, control.AdviceRequest{Command: string(mha.Stop), Old: server, Group: o["remora-group"], By: caller("shutdown")})
	if err == nil && r.Outcome != control.AdviceOK {
		err = fmt.Errorf("refused: %s", r.Text)
	}
	if err != nil {
		a.say("shutdown %s: the address is not proven to be given up: %v", command, err)
		return exitStatus(mha.Abort)
	}
	seen, err := client.AskServer(ctx, control.ServerRequest{Server: server})
	if err != nil {
		a.say("shutdown %s: %v", command, err)
		return exitStatus(mha.Abort)
	}
	verdict := mha.Verdict(len(seen.Answered), len(seen.Silent), len(seen.Unreachable))
	code := mha.ShutdownExit(command, verdict, seen.ReadOnly == "yes")
	a.say("shutdown %s: %s has given the address up; its server: %s, read-only: %s; nothing was powered off", command, r.Node, verdict, seen.ReadOnly)
	return status(code)
}

// reportHook puts MHA's report into the history.
func (a *app) reportHook(ctx context.Context, args []string) error {
	o := mha.ParseOptions(args)
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	text := mha.ReportText(o)
	if err := a.adviser(o.Own()).Report(ctx, control.ReportRequest{Group: o["remora-group"], Text: text}); err != nil {
		a.say("report: not in the history: %v", err)
		return exitStatus(mha.Abort)
	}
	a.say("report: in the history")
	return nil
}

// mhaCheckCommand looks at an MHA set-up and touches nothing.
func (a *app) mhaCheckCommand() *cobra.Command {
	var path, global string
	c := &cobra.Command{
		Use:   "check APP1.CNF [--config FILE] [--global FILE]",
		Short: "Say what an app1.cnf leads to, and which lines to change",
		Long: `Read an application's configuration of MHA, the global defaults and Remora's configuration, and say for each script
whose it is, for each server which node it is, and which lines to change. Nothing is changed. The exit code is 1 if MHA
would move the address by itself, or a server is not a node.`,
		Args: exactly(1, "name MHA's file, like 'remora mha check /etc/masterha/app1.cnf'"),
		RunE: ran(func(_ *cobra.Command, args []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			app, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read MHA's configuration: %w", err)
			}
			defaults, err := os.ReadFile(global)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("read MHA's global defaults: %w", err)
			}
			conf, err := mha.ParseAppConf(string(app), string(defaults))
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			lines, ok := conf.Advise(daemon.MHANodes(cfg), "/usr/bin/remora")
			for _, l := range lines {
				fmt.Fprintln(a.env.Stdout, l)
			}
			if !ok {
				return exitStatus(mha.Abort)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&path, "config", "/etc/remora/remora.toml", "Remora's configuration")
	c.Flags().StringVar(&global, "global", "/etc/masterha_default.cnf", "MHA's global defaults; may be missing")
	return c
}
