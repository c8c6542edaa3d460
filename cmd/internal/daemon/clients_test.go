package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/netio"
)

// aKernel stands in for the sockets of a node.
type aKernel struct {
	mu      sync.Mutex
	clients map[netip.AddrPort][]netip.AddrPort
	nudged  []netip.AddrPort
	stir    netio.Stir
	blind   error // why the counters can not be read
	lists   atomic.Int32
}

func (k *aKernel) stirred() (netio.Stir, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stir, k.blind
}

func (k *aKernel) Clients(core.GroupSpec) (map[netip.AddrPort][]netip.AddrPort, error) {
	k.lists.Add(1)
	if k.clients == nil {
		return nil, errors.New("no netlink")
	}
	return k.clients, nil
}

func (k *aKernel) Nudge(_ context.Context, _ core.Announce, _ netip.AddrPort, ends []netip.AddrPort) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nudged = append(k.nudged, ends...)
	return nil
}

var vipPort = netip.MustParseAddrPort("10.77.0.100:3306")

func ends(n int) (all []netip.AddrPort) {
	for i := range n {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr("10.77.0.200"), uint16(40000+i)))
	}
	return all
}

func newClientele(k *aKernel, tell func(core.Clients)) *clientele {
	return &clientele{binder: k, stir: k.stirred, tell: tell, log: slog.New(slog.DiscardHandler)}
}

// TestTheNextOwnerNudgesTheLastOnesClients: all of them, in the first rounds of announcements, however many there are, and not
// those who had left before, nor any after a long time.
func TestTheNextOwnerNudgesTheLastOnesClients(t *testing.T) {
	const many = 3*core.MaxClients + 5
	for _, tt := range []struct {
		name          string
		later         time.Duration // from the last news to the takeover
		round, nudged int
	}{
		{"at once", 0, 1, many},
		{"after an election and a promotion", 30 * time.Second, 1, many},
		{"after hours", 3 * time.Hour, 1, 0},
		{"again", 0, nudgeRounds, many},
		{"a refresh", 0, nudgeRounds + 1, 0},
		{"a defence", 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := &aKernel{}
				c := newClientele(next, nil)
				told := 0
				owner := newClientele(&aKernel{clients: map[netip.AddrPort][]netip.AddrPort{vipPort: ends(many)}}, func(n core.Clients) {
					told++
					if len(n.Ends) > core.MaxClients || n.Group != "writer" || n.Epoch != 3 || n.Server != vipPort {
						t.Errorf("told %+v", n)
					}
					c.heard("db1", n)
				})
				gone := netip.MustParseAddrPort("10.77.0.200:39999")
				c.heard("db1", core.Clients{Group: "writer", Epoch: 2, Server: vipPort, Ends: []netip.AddrPort{gone}})
				owner.announced(core.Announce{Group: "writer", Epoch: 3, Round: 1})
				time.Sleep(clientsFresh + tellEvery + tellEvery/2)
				owner.close() // it is dead
				if told == 0 {
					t.Fatal("nothing was told")
				}
				time.Sleep(tt.later)
				c.announced(core.Announce{Group: "other", Epoch: 1, Round: 1})
				c.announced(core.Announce{Group: "writer", Epoch: 4, Round: tt.round})
				synctest.Wait()
				c.close()
				if len(next.nudged) != tt.nudged || slices.Contains(next.nudged, gone) {
					t.Errorf("%d nudged, want %d: %v", len(next.nudged), tt.nudged, next.nudged)
				}
			})
		})
	}
}

// TestWhoHasGivenUpTellsNothing, and knows nothing of what was before it served.
func TestWhoHasGivenUpTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int32
		c := newClientele(&aKernel{clients: map[netip.AddrPort][]netip.AddrPort{vipPort: ends(1)}}, func(core.Clients) { told.Add(1) })
		defer c.close()
		c.announced(core.Announce{Group: "writer", Epoch: 3, Round: 1})
		c.announced(core.Announce{Group: "writer", Epoch: 3, Round: 2})
		c.heard("db2", core.Clients{Group: "writer", Epoch: 2, Server: vipPort, Ends: ends(1)})
		time.Sleep(2*tellEvery + tellEvery/2)
		if n := told.Load(); n != 2 {
			t.Errorf("told %d times in two periods", n)
		}
		c.given("writer", 3)
		time.Sleep(10 * tellEvery)
		if n := told.Load(); n != 2 || len(c.of("writer")) > 0 {
			t.Errorf("told %d times, knows %v, after the group was given up", n, c.of("writer"))
		}
		// An announcement that was on its way meanwhile begins nothing, and a stray address that is removed ends nothing.
		c.announced(core.Announce{Group: "writer", Epoch: 3, Round: 1})
		c.heard("db2", core.Clients{Group: "writer", Epoch: 4, Server: vipPort, Ends: ends(1)})
		c.given("writer", 0)
		time.Sleep(10 * tellEvery)
		if n := told.Load(); n != 2 || len(c.of("writer")) != 1 {
			t.Errorf("told %d times, knows %v, after a late announcement", n, c.of("writer"))
		}
		c.announced(core.Announce{Group: "writer", Epoch: 5, Round: 1})
		time.Sleep(tellEvery + tellEvery/2)
		if n := told.Load(); n != 3 {
			t.Errorf("told %d times, after the group was served again", n)
		}
	})
}

// TestClientsAreListedWhenSomebodyComesOrGoes, once in a while in any case, and each time where the kernel does not count; they
// are told of each time.
func TestClientsAreListedWhenSomebodyComesOrGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &aKernel{clients: map[netip.AddrPort][]netip.AddrPort{vipPort: ends(1)}}
		var told atomic.Int32
		c := newClientele(k, func(core.Clients) { told.Add(1) })
		c.announced(core.Announce{Group: "writer", Epoch: 3, Round: 1})
		time.Sleep(tellEvery / 2)
		periods := func(what string, n, lists int) {
			t.Helper()
			k.lists.Store(0)
			told.Store(0)
			time.Sleep(time.Duration(n) * tellEvery)
			if listed, told := int(k.lists.Load()), int(told.Load()); listed != lists || told != n {
				t.Errorf("%s: listed %d times and told %d times in %d periods, want %d and %d", what, listed, told, n, lists, n)
			}
		}
		is := func(s netio.Stir, err error) { k.mu.Lock(); defer k.mu.Unlock(); k.stir, k.blind = s, err }
		periods("at first", 4, 1)
		is(netio.Stir{Accepted: 1}, nil)
		periods("somebody came", 4, 1)
		is(netio.Stir{Accepted: 1, Open: 1}, nil)
		periods("somebody went", 4, 1)
		periods("nobody for long", 2*int(listEvery/tellEvery), 2)
		is(netio.Stir{}, errors.New("no counters"))
		periods("nobody counts", 4, 4)
		is(netio.Stir{}, nil)
		periods("counted again", 4, 1)
		c.close()
	})
}
