package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/remora-ha/remora/cmd/internal/pki"
)

// release is set by the linker when a release is built: -X .../cmd/internal/cli.release=v1.2.3
var release string

// Version returns the release, or the revision that the binary was built from.
func Version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "devel"
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Args:  cobra.NoArgs,
		RunE: ran(func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.env.Stdout, "remora %s (%s, %s/%s)\n", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}),
	}
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
