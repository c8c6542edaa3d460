package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary itself plays the programs that a laboratory starts: started with one of these as its first argument
// it does not run tests.
const playCrash = "play-crash"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case playCrash:
			crash(os.Args[2])
		case "run":
			os.Exit(playDaemon(os.Args[2:]))
		case "pki":
			os.Exit(0) // the daemon that is played needs no certificates
		case "status", "switchover":
			os.Exit(playClient(os.Args[1:]))
		}
	}
	os.Exit(m.Run())
}

// crash raises a laboratory with a process in it, says the process's id and waits to be killed.
func crash(root string) {
	l, err := New(context.Background(), Options{Root: root, Nodes: []NodeOptions{{Name: "db1"}}})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	p, err := startProcess(l.Node("db1").NS, "sleep on db1", filepath.Join(l.Dir(), "log"), exec.Command("sleep", "1000"))
	if err == nil {
		err = l.record.addProcess(p)
	}
	// A process that nobody recorded: the laboratory crashed at just that moment.
	q, err2 := startProcess(l.Node("db1").NS, "sleep on db1", filepath.Join(l.Dir(), "log"), exec.Command("sleep", "1000"))
	if err != nil || err2 != nil {
		fmt.Println("failed:", err, err2)
		os.Exit(1)
	}
	fmt.Println("up", l.Name(), p.Pid(), q.Pid())
	select {}
}

func TestSweep(t *testing.T) {
	root := testRoot(t)
	cmd := exec.Command(os.Args[0], playCrash, root)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 4 || words[0] != "up" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	name, dir := words[1], filepath.Join(root, words[1])
	var pids []int
	for _, w := range words[2:] {
		pid, err := strconv.Atoi(w)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}

	// As long as its process lives it is nobody else's business.
	for _, sweep := range []func(string) ([]string, error){Sweep, SweepAll} {
		if swept, err := sweep(root); err != nil || len(swept) != 0 {
			t.Fatalf("swept %v of a living process, %v", swept, err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Fatalf("the process %d should have survived the crash: %v", pid, err)
		}
	}
	if swept, err := Sweep(root); err != nil || !slices.Equal(swept, []string{name}) {
		t.Errorf("swept %v, %v; want %s", swept, err, name)
	}
	checkGone(t, name, dir)
	for _, pid := range pids {
		if id, err := identify(pid, ""); err == nil && id.alive() {
			t.Errorf("the process %d is still there", pid)
		}
	}
	if swept, err := Sweep(root); err != nil || len(swept) != 0 {
		t.Errorf("swept %v again, %v", swept, err)
	}
}

func TestKeptIsSweptOnDemand(t *testing.T) {
	root := testRoot(t)
	l, err := New(testContext(t), Options{Root: root, Nodes: []NodeOptions{{Name: "db1"}}})
	if err != nil {
		t.Fatal(err)
	}
	l.Keep()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// Its process is this one; only a dead one's laboratory may be swept.
	if err := l.record.update(func(s *state) { s.Owner.Start++ }); err != nil {
		t.Fatal(err)
	}
	if swept, err := Sweep(root); err != nil || len(swept) != 0 {
		t.Errorf("swept the kept %v, %v", swept, err)
	}
	if infos, err := List(root); err != nil || len(infos) != 1 || !infos[0].Kept {
		t.Errorf("listed %+v, %v", infos, err)
	}
	if swept, err := SweepAll(root); err != nil || !slices.Equal(swept, []string{l.Name()}) {
		t.Errorf("swept %v, %v", swept, err)
	}
	checkGone(t, l.Name(), l.Dir())
}

// TestKillOnlyItsOwn makes sure that a pid that was given to another process is left alone.
func TestKillOnlyItsOwn(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	id, err := identify(cmd.Process.Pid, "sleep")
	if err != nil {
		t.Fatal(err)
	}
	former := id
	former.Start--
	if err := former.kill(time.Second); err != nil || !id.alive() {
		t.Fatalf("an older process's id: %v, alive %v", err, id.alive())
	}
	if err := id.kill(time.Second); err != nil || id.alive() {
		t.Errorf("its own id: %v, alive %v", err, id.alive())
	}
}
