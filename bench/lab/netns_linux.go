package lab

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) keeps the names of network namespaces.
const netnsDir = "/run/netns"

// Namespace is a named network namespace.
type Namespace struct {
	// Name is the name that ip-netns(8) knows it by.
	Name string
	fd   int
}

// openNamespace opens a namespace that exists.
func openNamespace(name string) (*Namespace, error) {
	fd, err := unix.Open(filepath.Join(netnsDir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	return &Namespace{Name: name, fd: fd}, nil
}

// close forgets the namespace. It does not remove it.
func (n *Namespace) close() {
	if n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
}

// Do runs fn on a thread of its own inside the namespace. Sockets that fn makes and processes that it starts stay in
// the namespace; goroutines that it starts do not.
func (n *Namespace) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.doLocked(fn) }()
	return <-done
}

func (n *Namespace) doLocked(fn func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w (are you root?)", n.Name, err)
	}
	err = fn()
	if unix.Setns(home, unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	// Otherwise the thread stays locked and ends with this goroutine: nobody else gets a thread in the wrong namespace.
	return err
}

// Dial connects from inside the namespace, like net.Dialer.DialContext.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Command starts and waits for a command inside the namespace and returns what it printed on both outputs.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out []byte
	err := n.Do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		return out, fmt.Errorf("run %s in %s: %w: %s", name, n.Name, err, firstLine(out))
	}
	return out, nil
}

// start starts cmd inside the namespace.
func (n *Namespace) start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }
