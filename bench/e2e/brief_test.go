//go:build !long

package e2e

import "slices"

// deadLineFlavours are the servers that a dead line is tried on: MySQL, for make test has no time for MariaDB, too.
func deadLineFlavours() []flavour {
	return slices.DeleteFunc(flavours(), func(f flavour) bool { return f.family == "mariadb" })
}
