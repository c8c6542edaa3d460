package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/daemon"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/detector"
)

// familyTimeout bounds the question to the server which kind it is, gtidTimeout a replica's change to GTID.
const (
	familyTimeout = 5 * time.Second
	gtidTimeout   = time.Minute
)

func (a *app) mysqlCommand() *cobra.Command {
	c := &cobra.Command{Use: "mysql COMMAND", Short: "Print what MySQL's accounts need, repair a replica"}
	return family(c, a.grantsCommand(), a.useGTIDCommand())
}

func (a *app) useGTIDCommand() *cobra.Command {
	var path, node, user, secret string
	c := &cobra.Command{
		Use:   "use-gtid [--user USER --password-file FILE]",
		Short: "Have this node's MariaDB replica, which MHA has left by file and position, go on by GTID",
		Long: `Have this node's MariaDB replica go on by GTID from the same source. MHA points replicas by file and position, after
which they show Using_Gtid: No. The receiver is stopped, what it has received is applied, and the source is asked
which GTIDs its binary log has up to there. If they are what the replica has executed it goes on from them, else as
before, and the reason is printed. Refused for a server that is writable, that has transactions which its source
lacks, that has several sources, or whose replication does not run. A replica by GTID is left alone.

The account is that of [mysql], which needs what 'remora mysql grants --policy promote' prints; or name another one.
The source is asked with the account of [replication] or, without one, that of [mysql].`,
		Args: none,
		RunE: ran(func(c *cobra.Command, _ []string) error {
			cfg, self, _, err := a.check(path, node)
			if err != nil {
				return err
			}
			n, _ := cfg.Node(self.Name)
			if n.Witness {
				return fmt.Errorf("%s is a witness and has no MySQL", n.Name)
			}
			source := cfg.Replication
			if source.User == "" {
				source.User, source.PasswordFile = n.MySQL.User, n.MySQL.PasswordFile
			}
			if user != "" {
				n.MySQL.User, n.MySQL.PasswordFile = user, secret
			}
			act, err := daemon.ActorOf(n.MySQL, source, nil)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), gtidTimeout)
			defer cancel()
			done, err := act.UseGTID(ctx)
			switch {
			case err != nil:
				return fmt.Errorf("%s does not replicate by GTID: %w", n.Name, err)
			case done.Position == "":
				_, err = fmt.Fprintf(a.env.Stdout, "%s replicates from %s by GTID already\n", n.Name, done.Source)
			default:
				_, err = fmt.Fprintf(a.env.Stdout, "%s replicates from %s by GTID, from %s on\n", n.Name, done.Source, done.Position)
			}
			return err
		}),
	}
	c.Flags().StringVar(&path, "config", "/etc/remora/remora.toml", "the configuration, the same file on every node")
	c.Flags().StringVar(&node, "node", "", "the node that this machine is; found by its addresses if not given")
	c.Flags().StringVar(&user, "user", "", "another account than that of [mysql]")
	c.Flags().StringVar(&secret, "password-file", "", "the file with the password of --user")
	return c
}

func (a *app) grantsCommand() *cobra.Command {
	var policy, kind, host, path, node string
	var advised, kills bool
	c := &cobra.Command{
		Use:   "grants [--policy any|follow|promote] [--mha] [--kill] [--family FAMILY] [--host HOST]",
		Short: "Print the statements that grant Remora's account what it needs",
		Long: `Print the statements that grant Remora's account what it needs for a policy. The server of this node is asked which
kind it is; with --family no server is asked, and no configuration is needed. Nothing is changed: read the statements
and run them as an administrator on the primary; replication carries them to the other servers.

--kill adds, where the policy does not need it anyway, what it takes to end the sessions that clients have left on a
node whose address has moved. Only nodes whose kernel can not end their connections use it: 'remora status --json'
says so in old_connections.`,
		Args: none,
		RunE: ran(func(c *cobra.Command, _ []string) error {
			p := core.Policy(policy)
			if !slices.Contains([]core.Policy{core.AnyHealthy, core.Follow, core.Promote}, p) {
				return usagef("--policy %q: use any, follow or promote", policy)
			}
			f, user, repl := detector.Family(kind), config.DefaultUser, "repl"
			if kind == "" {
				cfg, self, _, err := a.check(path, node)
				if err != nil {
					return err
				}
				n, _ := cfg.Node(self.Name)
				user, repl = n.MySQL.User, cfg.Replication.User
				if f, err = familyOf(c.Context(), n.MySQL); err != nil {
					return err
				}
			} else if !slices.Contains(detector.Families(), f) {
				return usagef("--family %q: use one of %s", kind, familyNames())
			}
			_, err := fmt.Fprintln(a.env.Stdout, strings.Join(f.Grants(p, advised, kills, user, host, repl), "\n"))
			return err
		}),
	}
	c.Flags().StringVar(&policy, "policy", string(core.Follow), "any, follow or promote")
	c.Flags().BoolVar(&advised, "mha", false, "what graceful and clear_read_only of [mha] need besides")
	c.Flags().BoolVar(&kills, "kill", false, "what the server's KILL needs besides, where the kernel has no SOCK_DESTROY")
	c.Flags().StringVar(&kind, "family", "", "the kind of server, instead of asking it: "+familyNames())
	c.Flags().StringVar(&host, "host", "localhost", "the host part of the account")
	c.Flags().StringVar(&path, "config", "/etc/remora/remora.toml", "the configuration, the same file on every node")
	c.Flags().StringVar(&node, "node", "", "the node that this machine is; found by its addresses if not given")
	return c
}

func familyNames() string {
	var names []string
	for _, f := range detector.Families() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// familyOf asks the node's server.
func familyOf(ctx context.Context, m config.MySQL) (detector.Family, error) {
	act, err := daemon.ActorOf(m, config.Replication{}, nil)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, familyTimeout)
	defer cancel()
	f, err := act.Family(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the server which kind it is (--family names it without asking): %w", err)
	}
	return f, nil
}
