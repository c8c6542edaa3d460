//go:build long

package e2e

// deadLineFlavours are the servers that a dead line is tried on, where there is time: all.
func deadLineFlavours() []flavour { return flavours() }
