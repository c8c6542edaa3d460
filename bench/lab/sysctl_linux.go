package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// writeSysctl sets a kernel parameter of the namespace that the calling thread is in.
func writeSysctl(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set kernel parameter %s to %s: %w", name, value, err)
	}
	return nil
}
