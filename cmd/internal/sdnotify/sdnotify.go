// Package sdnotify tells systemd how a service is doing, in the protocol of sd_notify(3): assignments, one on each line,
// in a datagram to the unix socket that the environment names. Without that socket everything here does nothing, so a
// daemon behaves the same under any other supervisor.
package sdnotify

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Notifier sends to the supervisor. The zero value and nil send nothing.
type Notifier struct {
	socket   string // a path, or a name in the abstract namespace after an @
	watchdog time.Duration
}

// FromEnvironment reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
func FromEnvironment() *Notifier { return fromEnvironment(os.Getenv, os.Getpid()) }

func fromEnvironment(getenv func(string) string, pid int) *Notifier {
	n := new(Notifier)
	if path := getenv("NOTIFY_SOCKET"); strings.HasPrefix(path, "/") || strings.HasPrefix(path, "@") {
		n.socket = path
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if owner := getenv("WATCHDOG_PID"); err == nil && usec > 0 && (owner == "" || owner == strconv.Itoa(pid)) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	return n
}

// Watchdog returns how long systemd waits for a sign of life; zero means that it does not wait for any. Send them twice
// as often.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Ready says that the start, or a reload, is over.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Stopping says that the service ends.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Alive is the sign of life that the watchdog waits for.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// Reloading says that a reload begins; Ready ends it. Type=notify-reload needs the time at which it began.
func (n *Notifier) Reloading() error {
	now, err := monotonic()
	if err != nil {
		return fmt.Errorf("tell systemd of a reload: %w", err)
	}
	return n.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Microseconds()))
}

// Status sets the line that 'systemctl status' shows.
func (n *Notifier) Status(text string) error {
	return n.send("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// send never waits: a supervisor that does not read must not hold up a service, and the sign of life comes from a loop
// that has better things to do.
func (n *Notifier) send(state string) error {
	if n == nil || n.socket == "" {
		return nil
	}
	if err := sendNow(n.socket, []byte(state)); err != nil {
		return fmt.Errorf("notify systemd at %s: %w", n.socket, err)
	}
	return nil
}
