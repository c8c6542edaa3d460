package detector

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// ErrConfig marks an error of New that is the configuration's fault.
var ErrConfig = errors.New("detector: bad configuration")

// HangUp is prepared to close a listening socket of a process that will end.
type HangUp interface {
	// Do closes it.
	Do()
	// Close frees what was prepared, and is the last that is called.
	Close()
}

// Config says which server is watched, and how closely.
type Config struct {
	// Address is where the local server listens: "host:port", or "unix:/path" for its unix socket.
	Address string
	// User is the account. It needs no privilege but the one to see the replica status: REPLICATION CLIENT on MySQL,
	// SLAVE MONITOR on MariaDB 10.5 and later.
	User string
	// Password returns the password. It is called for each new connection, so that a changed one is picked up. Nil means
	// that there is none.
	Password func() (string, error)
	// TLS encrypts the connection; a server that offers none, or that does not prove its name, is an alarm then. Nil means
	// no TLS.
	TLS *tls.Config
	// Policy says which privileges the account must have; those that are missing are an alarm. Empty means that none is
	// looked for.
	Policy core.Policy
	// Advised says that MHA's advice may change the server's mode, for which the account needs more.
	Advised bool
	// Timing gives Probe, ProbeTimeout, Fall and Rise.
	Timing core.Timing
	// Deliver takes the events, HealthChanged only. It is called from Run's goroutine and must not block.
	Deliver func(core.Event)
	// PrepareHangUp, if set, makes ready to close a listening TCP socket of the server, named by its address and inode. What it
	// returns is done when the server's process has begun to end: it is on its way to close the socket itself, and would let clients in
	// until then. It is done before the event, from any goroutine, and should take no longer than a call of the kernel. What can
	// not be prepared is nil.
	PrepareHangUp func(at netip.AddrPort, inode uint64) HangUp
	// Clock reads the lease clock.
	Clock func() core.Instant
	// Alarms makes the timer of the probes; nil means one of the Go runtime.
	Alarms alarm.Maker
	// Logger takes the log; nil discards it.
	Logger *slog.Logger
}

// check returns all that is wrong with c, and the network and address to dial.
func (c *Config) check() (network, address string, err error) {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	network, address, err = splitAddress(c.Address)
	if err != nil {
		bad("address %q: %w", c.Address, err)
	}
	if c.User == "" {
		bad("user is empty: name the account that Remora logs in with")
	}
	if c.Deliver == nil || c.Clock == nil {
		bad("Deliver and Clock must be set")
	}
	if t := c.Timing; t.Probe <= 0 || t.ProbeTimeout <= 0 || t.Fall < 1 || t.Rise < 1 {
		bad("probe (%v), probe_timeout (%v), fall (%d) and rise (%d) must all be positive", t.Probe, t.ProbeTimeout, t.Fall, t.Rise)
	}
	return network, address, errors.Join(errs...)
}

// splitAddress splits "host:port" or "unix:/path" into a network and an address to dial.
func splitAddress(s string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return "", "", errors.New("the path of a unix socket must begin with a slash, as in unix:/run/mysqld/mysqld.sock")
		}
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(s); err != nil || port == "" {
		return "", "", errors.New("write host:port, as in 127.0.0.1:3306, or unix:/path")
	}
	return "tcp", s, nil
}
