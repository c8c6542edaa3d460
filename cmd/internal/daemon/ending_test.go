package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/detector"
	"github.com/remora-ha/remora/netio"
)

// aServer stands for what ends sessions. It is slow, asks once who is certain, and notes whom it ended.
type aServer struct {
	takes time.Duration
	err   error // of both questions

	mu    sync.Mutex
	ended []netip.AddrPort
	asked int
}

func (s *aServer) EndSessions(ctx context.Context, of func(uint16) ([]netip.AddrPort, error)) (detector.SessionsEnded, error) {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return detector.SessionsEnded{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return detector.SessionsEnded{}, s.err
	}
	ends, err := of(3306)
	s.ended = append(s.ended, ends...)
	return detector.SessionsEnded{Killed: len(ends)}, err
}

func (s *aServer) MayEndSessions(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.err
}

func (s *aServer) says(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// aLeftover is what netio hands on.
type aLeftover struct {
	all, certain []netio.Connection
	err          error
}

func (l aLeftover) Connections() []netio.Connection      { return l.all }
func (l aLeftover) Certain() ([]netio.Connection, error) { return l.certain, l.err }
func from(port uint16, server netip.AddrPort) netio.Connection {
	return netio.Connection{Client: netip.AddrPortFrom(netip.MustParseAddr("10.77.0.200"), port), Server: server}
}

// lines is a log that is read back.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func aNewEnding(kernel error, s *aServer) (*ending, *lines) {
	log := &lines{}
	e := newEnding(kernel, nil, slog.New(slog.NewTextHandler(log, nil)))
	e.server = s
	return e, log
}

// What the kernel does not end goes to the server: the certain ones of the server's port alone, in bounded time, and who hands it
// on waits for nothing.
func TestWhatTheKernelDoesNotEndTheServerDoes(t *testing.T) {
	sshd := netip.AddrPortFrom(vipPort.Addr(), 22)
	l := aLeftover{all: []netio.Connection{from(1, vipPort), from(2, vipPort), from(3, sshd)}, certain: []netio.Connection{from(1, vipPort), from(3, sshd)}}
	for _, c := range []struct {
		name   string
		server *aServer
		left   aLeftover
		ended  int
		log    string
	}{
		{"ended", &aServer{takes: time.Second}, l, 1, "connections=3 killed=1"},
		{"a server that hangs", &aServer{takes: time.Hour}, l, 0, "KILL them"},
		{"a server that is down", &aServer{err: errors.New("refused")}, l, 0, "KILL them"},
		{"a kernel that tells nothing", &aServer{}, aLeftover{all: l.all, err: errors.New("no netlink")}, 0, "KILL them"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, log := aNewEnding(netio.ErrNoDestroy, c.server)
				start := time.Now()
				e.left("writer", c.left)
				if took := time.Since(start); took > 0 {
					t.Errorf("the one who handed it on waited %v", took)
				}
				e.done.Wait()
				if took := time.Since(start); took > endWithin || len(c.server.ended) != c.ended || log.count(c.log) != 1 {
					t.Errorf("after %v %v ended; %s", took, c.server.ended, log.b.String())
				}
				if c.ended > 0 && !slices.Equal(c.server.ended, []netip.AddrPort{from(1, vipPort).Client}) {
					t.Errorf("ended %v", c.server.ended)
				}
				e.left("writer", aLeftover{})
				e.close()
				c.server.takes, c.server.err = 0, nil
				e.left("writer", l)
				e.done.Wait()
				if len(c.server.ended) != c.ended {
					t.Errorf("%v ended after the end", c.server.ended)
				}
			})
		})
	}
}

// status says by what connections are ended, and the log says so once.
func TestHowOldConnectionsAreEndedIsTold(t *testing.T) {
	lacks := fmt.Errorf("%w: it lacks PROCESS", detector.ErrMayNotEnd)
	for _, c := range []struct {
		name   string
		kernel error
		means  string
	}{{"a kernel that can", nil, endDestroy}, {"one of which it is not known", errors.New("no netlink"), endUnknown}} {
		s := &aServer{}
		e, _ := aNewEnding(c.kernel, s)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		e.keep(ended)
		if means, why := e.how(); means != c.means || (why == "") != (c.kernel == nil) || s.asked > 0 {
			t.Errorf("%s: %s (%s), the server was asked %d times", c.name, means, why, s.asked)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &aServer{err: errors.New("connection refused")}
		e, log := aNewEnding(fmt.Errorf("try: %w", netio.ErrNoDestroy), s)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { e.keep(ctx) })
		defer wg.Wait()
		defer cancel()
		expect := func(means, text string, warned, informed int) {
			t.Helper()
			synctest.Wait()
			if got, why := e.how(); got != means || !strings.Contains(why, text) || !strings.Contains(why, "SOCK_DESTROY") ||
				log.count("level=WARN") != warned || log.count("level=INFO") != informed {
				t.Errorf("%s (%s), want %s (%s)\n%s", got, why, means, text, log.b.String())
			}
		}
		expect(endUnknown, "not told yet", 0, 0)
		s.says(lacks)
		time.Sleep(2*mayEvery + mayEvery/2)
		expect(endNone, "lacks PROCESS", 1, 0)
		s.says(errors.New("connection refused")) // a server that is down takes no privileges away
		time.Sleep(mayEvery)
		expect(endNone, "lacks PROCESS", 1, 0)
		s.says(nil)
		time.Sleep(2 * mayEvery)
		expect(endKill, "", 1, 1)
		s.says(lacks)
		e.left("writer", aLeftover{}) // and is found out while it is done
		e.done.Wait()
		expect(endNone, "lacks PROCESS", 3, 1)
	})
}
