package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/remora-ha/remora/bench/lab"
)

// showLogs prints the end of the daemons' logs after a failure, because the laboratory takes its files with it.
func showLogs(l *lab.Lab) {
	const lines = 25
	for _, n := range l.Nodes() {
		text, err := os.ReadFile(n.LogPath())
		if err != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "--- end of the log of %s ---\n%s\n", n.Name, lastLines(text, lines))
	}
}

func lastLines(text []byte, n int) []byte {
	all := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	return bytes.Join(all[max(0, len(all)-n):], []byte("\n"))
}

// howToLookAround tells what can be done in a laboratory that was left up.
func howToLookAround(w io.Writer, l *lab.Lab) {
	node := l.Nodes()[0]
	self := os.Args[0]
	fmt.Fprintf(w, `
The laboratory %[1]s is still up. Look around in it:
  %[2]s exec %[3]s -- %[4]s status          # the cluster as %[3]s sees it
  %[2]s exec %[3]s -- %[4]s switchover %[5]s --to NODE
  %[2]s exec %[3]s -- ip address            # any command inside a node
  %[2]s exec client -- mariadb -h %[6]v -u %[7]s -p%[8]s -e 'SELECT @@server_id, @@version'
  %[2]s exec switch -- bridge link          # the switch between them
  tail -f %[9]s/*/remora.log
Clear it away:
  %[2]s down
`, l.Name(), self, node.Name, l.Remora(), lab.Group, l.VIP(), lab.ClientUser, lab.ClientPassword, l.Dir())
}
