package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/detector"
	"github.com/remora-ha/remora/netio"
)

// When an address has left this node, its kernel ends the connections that are left here (SOCK_DESTROY). Where it can not, this
// node's server is asked to end the sessions of those clients with KILL. It comes after the move, and nothing rests on it.
const (
	// endWithin bounds the end of the sessions that one move has left.
	endWithin = 10 * time.Second
	// mayEvery is how often it is looked at whether the account may end sessions, where the kernel can not.
	mayEvery = 30 * time.Second
)

// By what old connections are ended on this node, as status names it.
const (
	endDestroy = "SOCK_DESTROY"
	endKill    = "KILL"
	endNone    = "none"
	endUnknown = "unknown"
)

// ending ends the sessions of clients whose address has left this node and whose connections the kernel does not end.
type ending struct {
	kernel error // what CheckDestroy has said
	server interface {
		EndSessions(context.Context, func(port uint16) ([]netip.AddrPort, error)) (detector.SessionsEnded, error)
		MayEndSessions(context.Context) error
	}
	log *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	asked  bool
	may    error // what the server has said last, if it was asked
}

// newEnding returns an ending for a node whose kernel says what CheckDestroy has returned.
func newEnding(kernel error, server *detector.Actor, log *slog.Logger) *ending {
	e := &ending{kernel: kernel, server: server, log: log}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// leftover is a netio.Leftover.
type leftover interface {
	Connections() []netio.Connection
	Certain() ([]netio.Connection, error)
}

// left takes connections that the kernel does not end. It waits for nothing. After close it does nothing.
func (e *ending) left(g core.GroupName, l leftover) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() == nil {
		e.done.Go(func() { e.end(g, l) })
	}
}

func (e *ending) end(g core.GroupName, l leftover) {
	ctx, cancel := context.WithTimeout(e.ctx, endWithin)
	defer cancel()
	ended, err := e.server.EndSessions(ctx, func(port uint16) (ends []netip.AddrPort, err error) {
		all, err := l.Certain()
		for _, c := range all {
			if c.Server.Port() == port {
				ends = append(ends, c.Client)
			}
		}
		return ends, err
	})
	if errors.Is(err, detector.ErrMayNotEnd) {
		e.note(err)
	}
	if err != nil {
		e.log.Warn("sessions of clients whose address has left this node stay on its server, with locks and open transactions, until its own timeouts end them: look at SHOW PROCESSLIST and KILL them",
			"group", g, "connections", len(l.Connections()), "killed", ended.Killed, "err", err)
		return
	}
	e.log.Info("ended the sessions of clients whose address has left this node with the server's KILL", "group", g,
		"connections", len(l.Connections()), "killed", ended.Killed, "not_certain", ended.Unknown, "spared", ended.Spared, "refused", ended.Refused)
}

// keep looks, where the kernel can not end connections, whether the server's account may, until ctx ends.
func (e *ending) keep(ctx context.Context) {
	if !errors.Is(e.kernel, netio.ErrNoDestroy) {
		return
	}
	tick := time.NewTicker(mayEvery)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, endWithin)
		err := e.server.MayEndSessions(asking)
		cancel()
		if ctx.Err() == nil && (err == nil || errors.Is(err, detector.ErrMayNotEnd)) {
			e.note(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// note takes the server's word on whether sessions may be ended, and logs it when it is another one than before.
func (e *ending) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.asked && (err == nil) == (e.may == nil) {
		e.may = err
		return
	}
	e.asked, e.may = true, err
	if err == nil {
		e.log.Info("when an address leaves this node the sessions of its clients are ended with the server's KILL, since the kernel can not end their connections")
		return
	}
	e.log.Warn("when an address leaves this node its clients are reset, but the server here keeps their sessions, with locks and open transactions, until its own timeouts or a KILL end them: use a kernel with CONFIG_INET_DIAG_DESTROY, or give the account what is missing",
		"err", err)
}

// how says by what old connections are ended on this node, and why not by the kernel.
func (e *ending) how() (means, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.kernel == nil:
		return endDestroy, ""
	case !errors.Is(e.kernel, netio.ErrNoDestroy):
		return endUnknown, e.kernel.Error()
	case !e.asked:
		return endUnknown, e.kernel.Error() + ", and the server has not told yet whether the account may end sessions"
	case e.may != nil:
		return endNone, e.kernel.Error() + ", and " + e.may.Error()
	}
	return endKill, e.kernel.Error()
}

// close ends everything and waits for it.
func (e *ending) close() {
	e.mu.Lock()
	e.cancel()
	e.mu.Unlock()
	e.done.Wait()
}

// tryDestroy finds out at start whether this node's kernel ends old connections after an address has moved. A node that binds
// nothing has none.
func (d *daemon) tryDestroy() error {
	if d.opt.DryRun || d.opt.Self.Witness {
		return nil
	}
	err := netio.CheckDestroy()
	if err != nil && !errors.Is(err, netio.ErrNoDestroy) {
		d.log.Warn("whether the server's side of old connections is ended when an address leaves this node is not known", "err", err)
	}
	return err
}

// oldConnections is what status tells of how they are ended on this node.
func (d *daemon) oldConnections() (means, why string) {
	if d.opt.DryRun || d.opt.Self.Witness {
		return endNone, "" // no address is ever bound here
	}
	return d.ending.how()
}
