// Remora keeps a virtual IP address on the MySQL node that should serve it.
package main

import (
	"context"
	"os"

	"github.com/remora-ha/remora/cmd/internal/cli"
)

func main() { os.Exit(cli.Main(context.Background(), cli.System())) }
