package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Ballast fills a table in the memory of the node's server, so that the server has touched mib MiB, and checks with the
// kernel that it has. A process takes the longer to die the more it has. The server must be a MariaDB, and what is in the
// table is not replicated and ends with the server.
func (n *Node) Ballast(ctx context.Context, mib int) error {
	const row = 8000 // bytes; the longest that the engine stores whole
	rows := mib << 20 / row
	// The definition of a table in memory outlives its server.
	err := n.Exec(ctx, "SET sql_log_bin = 0", fmt.Sprintf("SET max_heap_table_size = %d", 2*mib<<20), fmt.Sprintf("DROP TABLE IF EXISTS %s.ballast", Schema),
		fmt.Sprintf("CREATE TABLE %s.ballast (b CHAR(250) CHARACTER SET latin1, c VARCHAR(%d) CHARACTER SET latin1) ENGINE=MEMORY", Schema, row-250),
		fmt.Sprintf("INSERT INTO %s.ballast SELECT 'x', REPEAT('x', %d) FROM %s.seq_1_to_%d", Schema, row-250, Schema, rows))
	if err != nil {
		return err
	}
	has, err := residentMiB(n.Server().Pid())
	if err == nil && has < mib {
		err = fmt.Errorf("the server of %s has touched %d MiB, wanted %d", n.Name, has, mib)
	}
	return err
}

// residentMiB returns how much memory of a process is in memory.
func residentMiB(pid int) (int, error) {
	return memoryMiB(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
}

// AvailableMiB returns how much memory programs may still take on this machine.
func AvailableMiB() (int, error) { return memoryMiB("/proc/meminfo", "MemAvailable:") }

// memoryMiB reads a line of a file in /proc that counts KiB.
func memoryMiB(path, key string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("look at the memory: %w", err)
	}
	_, rest, found := strings.Cut(string(text), key)
	var kib int
	if _, err := fmt.Sscan(rest, &kib); !found || err != nil {
		return 0, fmt.Errorf("look at the memory: %s has no %s", path, key)
	}
	return kib >> 10, nil
}
