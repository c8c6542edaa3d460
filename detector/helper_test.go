package detector

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helper is the other process of a test: the test binary run again. It touches much memory, answers nobody, and prints
// the address on which it accepts. A line on its standard input ends some of its threads.
func helper(mode string) {
	var mib int
	if _, err := fmt.Sscanf(mode, "memory %d", &mib); err != nil {
		panic(err)
	}
	b, err := unix.Mmap(-1, 0, mib<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	quit := make(chan struct{})
	for range 8 {
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			close(started)
			<-quit
		}()
		<-started
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		close(quit)
		fmt.Println("threads ended")
	}()
	for held := map[net.Conn]bool{}; ; {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		held[c] = true
	}
}

// victim is a running helper.
type victim struct {
	cmd     *exec.Cmd
	address string
	in      io.Writer
	out     *bufio.Reader
}

func newVictim(t testing.TB, mib int) *victim {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{cmd: exec.Command(exe)}
	v.cmd.Dir = t.TempDir()
	v.cmd.Env = append(os.Environ(), fmt.Sprintf("REMORA_TEST_HELPER=memory %d", mib), "GOTRACEBACK=crash")
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if v.in, err = v.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.cmd.Process.Kill(); v.cmd.Wait() })
	v.out = bufio.NewReader(out)
	v.address = v.line(t)
	return v
}

func (v *victim) line(t testing.TB) string {
	t.Helper()
	s, err := v.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func (v *victim) pid() int { return v.cmd.Process.Pid }

// eof tells when a connection to the victim ends.
func (v *victim) eof(t testing.TB) <-chan time.Time {
	t.Helper()
	c, err := net.Dial("tcp", v.address)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan time.Time, 1)
	go func() {
		defer c.Close()
		io.Copy(io.Discard, c)
		ch <- time.Now()
	}()
	return ch
}
