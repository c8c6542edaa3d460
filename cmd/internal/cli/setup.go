package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/pki"
	"github.com/remora-ha/remora/core"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config COMMAND", Short: "Check a configuration or print an example"}
	return family(c, a.configCheckCommand(), &cobra.Command{
		Use:   "example",
		Short: "Print a complete configuration that explains every key",
		Args:  none,
		RunE: ran(func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(a.env.Stdout, config.Example())
			return err
		}),
	})
}

func (a *app) configCheckCommand() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "check FILE [--node NAME]",
		Short: "Print everything that is wrong with a configuration, and with this machine for it",
		Long: `Print everything that is wrong with a configuration file, and with this machine for it: interfaces, certificates,
files, capabilities. Nothing is changed. Run it as the user that runs the daemon and with its capabilities, see
docs/operation.md. The exit code is 2 if the daemon would not start; warnings alone leave it 0.`,
		Args: exactly(1, "name the file to check, like 'remora config check /etc/remora/remora.toml'"),
		RunE: ran(func(_ *cobra.Command, args []string) error {
			cfg, self, problems, err := a.check(args[0], node)
			if err != nil {
				return err
			}
			if len(problems.Errors()) > 0 {
				return problems
			}
			for _, p := range problems {
				if _, err := fmt.Fprintln(a.env.Stderr, p); err != nil {
					return err
				}
			}
			return a.describe(cfg, self)
		}),
	}
	c.Flags().StringVar(&node, "node", "", "the node that this machine is; found by its addresses if not given")
	return c
}

// describe tells what a good file means.
func (a *app) describe(cfg *config.Config, self core.NodeSpec) error {
	t := cfg.Timing()
	rtt, store := time.Millisecond, 5*time.Millisecond
	survives, left, needed := t.SurvivesLeader(rtt, store)
	leader := "other nodes' groups stay where they are"
	if !survives {
		leader = "other nodes' groups may be unbound for a moment"
	}
	_, err := fmt.Fprintf(a.env.Stdout, `ok: cluster %s, version %d, this machine is node %s
nodes: %d, groups: %d, profile: %s
  reports every %v, a lease lasts %v, the last %v of it are for unbinding
  when an owner falls silent, its addresses are granted anew %v after its last renewal (lease + margin of %v)
  when the leader falls silent, %s:
    a lease has %v left then, an election may need %v (with %v between nodes and %v for an append to the log)
`, cfg.Cluster, cfg.Version, self.Name, len(cfg.Nodes), len(cfg.Groups), cfg.Profile, t.Heartbeat, t.TTL, t.Unbind,
		t.TTL+core.Margin(t.TTL), core.Margin(t.TTL), leader, left, needed, rtt, store)
	return err
}

func (a *app) pkiCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pki COMMAND",
		Short: "Make the certificates by which the nodes know one another",
		Long: `Make the certificates by which the nodes know one another: 'init' makes a certificate authority for a cluster,
'issue' a certificate for each node. Copy ca.pem to every node, and to each node its own NODE.pem and NODE.key.
The authority's key, ca.key, stays where it is; no node needs it.

The authority is valid for 10 years, a node's certificate for 2 years. Nothing is ever overwritten: to renew one
move the old files away, issue it anew, install it and reload the daemon.

To change the authority make the new one in another directory. Nodes know one another by all certificates of their
ca.pem: append the new ca.pem to it on every node and reload all; issue all nodes with the new authority, install
and reload one after the other; last leave the old authority out of ca.pem.`,
	}
	return family(c, a.pkiInitCommand(), a.pkiIssueCommand(), a.pkiShowCommand())
}

func pkiDir(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", "remora-pki", "the directory of the certificate authority")
}

func (a *app) pkiInitCommand() *cobra.Command {
	var dir, cluster string
	c := &cobra.Command{
		Use:     "init --cluster NAME [--dir DIR]",
		Short:   "Make a certificate authority for a cluster",
		Example: "  remora pki init --cluster orders",
		Args:    none,
		RunE: ran(func(*cobra.Command, []string) error {
			if cluster == "" {
				return usagef("name the cluster with --cluster NAME, as in the key cluster of the configuration")
			}
			if problem := config.ValidName(cluster); problem != "" {
				return usagef("--cluster: %q %s", cluster, problem)
			}
			if err := pki.Dir(dir).Init(cluster, time.Now()); err != nil {
				return err
			}
			cert, key := pki.Dir(dir).CAFiles()
			_, err := fmt.Fprintf(a.env.Stdout, "%s  copy it to every node\n%s  keep it here, no node needs it\nnext: remora pki issue NODE%s, for each node\n",
				cert, key, dirFlag(dir))
			return err
		}),
	}
	c.Flags().StringVar(&cluster, "cluster", "", "the name of the cluster")
	pkiDir(c, &dir)
	return c
}

func dirFlag(dir string) string {
	if dir == "remora-pki" {
		return ""
	}
	return " --dir " + dir
}

func (a *app) pkiIssueCommand() *cobra.Command {
	var dir, cluster string
	var hook bool
	c := &cobra.Command{
		Use:     "issue NODE [--dir DIR] [--hook]",
		Short:   "Make the certificate and key of a node, or of a hook that asks nodes",
		Example: "  remora pki issue db1",
		Args:    exactly(1, "name the node, like 'remora pki issue db1'"),
		RunE: ran(func(_ *cobra.Command, args []string) error {
			node := args[0]
			if problem := config.ValidName(node); problem != "" {
				return usagef("node %q %s", node, problem)
			}
			if node == "ca" {
				return usagef("a node can not be called ca, because ca.pem and ca.key are the authority's: choose another name")
			}
			if hook {
				return a.issueHook(pki.Dir(dir), node, cluster)
			}
			if err := pki.Dir(dir).Issue(node, cluster, time.Now()); err != nil {
				return err
			}
			cert, key := pki.Dir(dir).NodeFiles(node)
			_, err := fmt.Fprintf(a.env.Stdout, "%s  copy it to node %s, as the file of cert under [tls]\n%s  copy it to node %s, as the file of key, readable by remora only\n",
				cert, node, key, node)
			return err
		}),
	}
	c.Flags().StringVar(&cluster, "cluster", "", "refuse to use the authority of another cluster than this")
	c.Flags().BoolVar(&hook, "hook", false, "NODE is the name of a hook: it may ask nodes what MHA's scripts ask, and is no node")
	pkiDir(c, &dir)
	return c
}

func (a *app) issueHook(dir pki.Dir, name, cluster string) error {
	if err := dir.IssueHook(name, cluster, time.Now()); err != nil {
		return err
	}
	cert, key := dir.NodeFiles(name)
	_, err := fmt.Fprintf(a.env.Stdout, "%s\n%s  copy both to the hook's host, with ca.pem, and name them with --cert, --key and --ca\n", cert, key)
	return err
}

func (a *app) pkiShowCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "show [--dir DIR]",
		Short: "List the certificates of a directory and when they end",
		Args:  none,
		RunE: ran(func(*cobra.Command, []string) error {
			infos, err := pki.Dir(dir).List()
			if err != nil {
				return err
			}
			if len(infos) == 0 {
				return fmt.Errorf("there are no certificates in %s: make an authority with 'remora pki init', or name its directory with --dir", dir)
			}
			return a.printCertificates(infos)
		}),
	}
	pkiDir(c, &dir)
	return c
}

func (a *app) printCertificates(infos []pki.Info) error {
	t := tabwriter.NewWriter(a.env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tFOR\tCLUSTER\tENDS")
	for _, i := range infos {
		ends := i.NotAfter.UTC().Format(time.DateOnly)
		if i.NotAfter.Before(time.Now()) {
			ends += " (over)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", i.File, i.Name, i.Cluster, ends)
	}
	return t.Flush()
}
