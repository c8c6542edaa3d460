package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// shell is a command-line client of MariaDB that keeps its connection to the address, as an operator's or a script's does.
type shell struct {
	in  io.Writer
	out *bufio.Scanner
}

// shells starts n command-line clients, of which each has been answered once.
func shells(t *testing.T, l *lab.Lab, n int) (all []*shell) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for range n {
		cmd := exec.CommandContext(ctx, "mariadb", "--no-defaults", "--batch", "--skip-column-names", "--unbuffered", "--force",
			"--skip-ssl", "--connect-timeout=10", "--host="+l.VIP().String(), fmt.Sprintf("--port=%d", lab.ServerPort), "--user="+lab.ClientUser)
		cmd.Env = append(cmd.Environ(), "MYSQL_PWD="+lab.ClientPassword)
		in, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, l.Client().NS.Do(cmd.Start))
		t.Cleanup(func() {
			cancel()
			_ = cmd.Wait() // it was killed
		})
		s := &shell{in: in, out: bufio.NewScanner(out)}
		s.ask(t, "SELECT 'ready'")
		if got := <-s.answer(); got != "ready" {
			t.Fatalf("a command-line client answered %q", got)
		}
		all = append(all, s)
	}
	return all
}

func (s *shell) ask(t *testing.T, statement string) {
	t.Helper()
	_, err := io.WriteString(s.in, statement+";\n")
	must(t, err)
}

// answer returns the next line, or what ended the client.
func (s *shell) answer() <-chan string {
	answered := make(chan string, 1)
	go func() {
		if s.out.Scan() {
			answered <- s.out.Text()
			return
		}
		answered <- fmt.Sprint("no answer: ", s.out.Err())
	}()
	return answered
}

// Command-line clients, idle ones and ones that wait for an answer, are told at once that their connection has gone, and the next
// one that they make is the new owner's: none waits for a connection that nobody holds any more, nor a second for a SYN that
// nobody answered. In batch mode the client does not connect again by itself; a script does, with "connect".
func TestCommandLineClientsAreAnsweredAfterAMove(t *testing.T) {
	const each = 25
	l := up(t, nil)
	all := shells(t, l, 2*each)
	admin, err := l.Node(l.Holder(l.VIP())).Admin()
	must(t, err)
	defer admin.Close()
	for _, s := range all[each:] {
		s.ask(t, "SELECT SLEEP(50)")
	}
	eventually(t, "the server works on all statements", func() bool { return sleeping(t, admin) == each })
	owner := l.Holder(l.VIP())
	before := time.Now()
	must(t, l.Switchover(within(t), others(l, owner)[0].Name))
	first := firstAnnouncement(t, l, l.Holder(l.VIP()), before)
	eventually(t, "the old server has lost its clients", func() bool { return sleeping(t, admin) == 0 })
	var waits []time.Duration
	for _, s := range all {
		asked := time.Now()
		s.ask(t, "DO 1;\nconnect;\nSELECT CONCAT('at ', @@server_id)")
		select {
		case got := <-s.answer():
			if !strings.HasPrefix(got, "at ") {
				t.Fatalf("%v after the first announcement a command-line client got %q", time.Since(first), got)
			}
			waits = append(waits, time.Since(asked))
		case <-time.After(10 * time.Second):
			t.Fatal("a command-line client waits for an answer")
		}
	}
	slices.Sort(waits)
	longest := waits[len(waits)-1]
	if longest >= time.Second {
		t.Errorf("a command-line client waited %v, as long as for the repetition of a SYN", longest)
	}
	t.Logf("%d command-line clients, half of them idle and half amid a statement: the next one failed, another connection was made and its statement answered within %v in the median, %v at the longest",
		len(waits), waits[len(waits)/2], longest)
}
