// Remora keeps a virtual IP address on the MySQL node that should serve it.
package main

import (
	"context"
	"os"

	"github.com/remora-ha/remora/cmd/internal/cli"
)

// version is set by the linker when a release is built: -X main.version=v1.2.3
var version string

func main() { os.Exit(cli.Main(context.Background(), cli.System(version))) }
