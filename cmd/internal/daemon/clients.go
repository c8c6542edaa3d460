package daemon

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/netio"
)

// A machine that dies says nothing to its clients. Those that wait for an answer would wait for as long as their kernels keep
// a silent connection, which is for ever unless they ask for something else, and the next owner does not know them. So each
// owner tells the others once in a while who is connected to its addresses, and the next owner makes them talk to it, which
// resets them. Nothing rests on it: a client that is forgotten is where it would be anyway.
const (
	// tellEvery is how often an owner tells who its clients are.
	tellEvery = 3 * time.Second
	// listEvery is how often it has them listed although the kernel's counters say that nobody has come or gone. For a list the
	// kernel looks through its whole table of connections, which takes it 2 ms where the table has 262,144 places, however few
	// connections there are.
	listEvery = 10 * tellEvery
	// clientsMost is how many of them it tells of, for each address and port.
	clientsMost = 4096
	// clientsFresh is how much older than the last news of a group the news of a client may be. An owner tells of all of them
	// each time; two tellings may get lost.
	clientsFresh = 3 * tellEvery
	// clientsKept is how old the last news of a group may be. A server that is to be promoted may have to apply first.
	clientsKept = 2 * time.Minute
	// nudgeRounds is with how many of the rounds of announcements clients are nudged. A client's neighbour cache may not heed
	// an announcement within a second of another one.
	nudgeRounds = 4
)

// clientele knows the clients of this node and of other owners.
type clientele struct {
	binder interface {
		Clients(core.GroupSpec) (map[netip.AddrPort][]netip.AddrPort, error)
		Nudge(context.Context, core.Announce, netip.AddrPort, []netip.AddrPort) error
	}
	stir func() (netio.Stir, error)
	tell func(core.Clients) // tells all other nodes
	log  *slog.Logger

	mu      sync.Mutex
	serving map[core.GroupName]*told
	gone    map[core.GroupName]core.Epoch // up to which epoch a group was given up
	rolls   map[core.GroupName]*roll
	closed  bool
	done    sync.WaitGroup
}

// roll is what another owner has said of its clients.
type roll struct {
	last    time.Time
	cleared time.Time // when who has left was forgotten last
	clients map[client]time.Time
}

type client struct{ server, end netip.AddrPort }

// told is what this node tells of the clients of a group that it serves.
type told struct {
	cancel context.CancelFunc
	count  *int // as of last time
}

// heard takes news of another owner's clients.
func (c *clientele) heard(_ core.NodeName, news core.Clients) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rolls == nil {
		c.rolls = map[core.GroupName]*roll{}
	}
	r := c.rolls[news.Group]
	if r == nil {
		r = &roll{clients: map[client]time.Time{}}
		c.rolls[news.Group] = r
	}
	r.last = now
	for _, end := range news.Ends {
		r.clients[client{news.Server, end}] = now
	}
	if now.Sub(r.cleared) >= tellEvery { // and not with each of the many messages of one telling
		r.cleared = now
		maps.DeleteFunc(r.clients, func(_ client, at time.Time) bool { return now.Sub(at) > clientsFresh })
	}
}

// of returns the clients that the last owner of a group had, by what they were connected to.
func (c *clientele) of(g core.GroupName) map[netip.AddrPort][]netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rolls[g]
	if r == nil || time.Since(r.last) > clientsKept {
		return nil
	}
	all := map[netip.AddrPort][]netip.AddrPort{}
	for cl, at := range r.clients {
		if r.last.Sub(at) <= clientsFresh {
			all[cl.server] = append(all[cl.server], cl.end)
		}
	}
	return all
}

// announced is called after each round of announcements. It waits for nothing. The group may have been given up while the
// announcement was on its way.
func (c *clientele) announced(a core.Announce) {
	if a.Round < 1 || a.Round > nudgeRounds {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || a.Epoch <= c.gone[a.Group] {
		return
	}
	c.done.Go(func() { c.nudge(a) })
	if a.Round > 1 {
		return
	}
	c.stop(a.Group)
	ctx, cancel := context.WithCancel(context.Background())
	if c.serving == nil {
		c.serving = map[core.GroupName]*told{}
	}
	t := &told{cancel: cancel}
	c.serving[a.Group] = t
	c.done.Go(func() { c.tellWhile(ctx, a, t) })
}

// nudge makes the last owner's clients talk to this node.
func (c *clientele) nudge(a core.Announce) {
	count := 0
	for server, ends := range c.of(a.Group) {
		if err := c.binder.Nudge(context.Background(), a, server, ends); err != nil {
			c.log.Info("some clients of the last owner may hang until they notice", "group", a.Group, "epoch", a.Epoch, "err", err)
		}
		count += len(ends)
	}
	if count > 0 && a.Round == 1 {
		c.log.Info("nudged the last owner's clients", "group", a.Group, "epoch", a.Epoch, "clients", count)
	}
}

// tellWhile tells who the clients of a group are as long as this node serves it.
func (c *clientele) tellWhile(ctx context.Context, a core.Announce, t *told) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	l := census{c: c, group: a.Spec}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all, err := l.take(time.Now())
		if err != nil {
			c.log.Debug("who is connected is not known", "group", a.Group, "err", err)
			continue
		}
		count := 0
		for _, ends := range all {
			count += len(ends)
		}
		c.mu.Lock()
		t.count = &count
		c.mu.Unlock()
		for server, ends := range all {
			for part := range slices.Chunk(ends[:min(len(ends), clientsMost)], core.MaxClients) {
				c.tell(core.Clients{Group: a.Group, Epoch: a.Epoch, Server: server, Ends: part})
			}
		}
	}
}

// census is who was connected to a group's addresses when they were listed last.
type census struct {
	c     *clientele
	group core.GroupSpec
	at    time.Time // zero if the list is not to be used again
	stir  netio.Stir
	all   map[netip.AddrPort][]netip.AddrPort
}

// take returns who is connected. It has them listed only if somebody may have come or gone.
func (l *census) take(now time.Time) (map[netip.AddrPort][]netip.AddrPort, error) {
	stir, unknown := l.c.stir() // before the list, so that who comes meanwhile has the next one made
	if unknown == nil && stir == l.stir && !l.at.IsZero() && now.Sub(l.at) < listEvery {
		return l.all, nil
	}
	l.at = time.Time{}
	all, err := l.c.binder.Clients(l.group)
	if err == nil && unknown == nil {
		l.at, l.stir, l.all = now, stir, all
	}
	return all, err
}

// given is called when a group is given up in an epoch. Epoch 0 is a stray address, and no holding.
func (c *clientele) given(g core.GroupName, e core.Epoch) {
	if e == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone == nil {
		c.gone = map[core.GroupName]core.Epoch{}
	}
	c.gone[g] = max(c.gone[g], e)
	c.stop(g)
	delete(c.rolls, g) // what was known is of the time before this node served
}

// stop ends the telling for a group. The caller holds the lock.
func (c *clientele) stop(g core.GroupName) {
	if t := c.serving[g]; t != nil {
		t.cancel()
		delete(c.serving, g)
	}
}

// count returns how many clients the owner of a group has, or nil if that is not known here.
func (c *clientele) count(g core.GroupName) *int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.serving[g]; t != nil {
		return t.count
	}
	r := c.rolls[g]
	if r == nil || time.Since(r.last) > clientsFresh {
		return nil
	}
	n := 0
	for _, at := range r.clients {
		if r.last.Sub(at) <= tellEvery/2 { // told of in the last round
			n++
		}
	}
	return &n
}

// close ends everything and waits for it.
func (c *clientele) close() {
	c.mu.Lock()
	c.closed = true
	for g := range c.serving {
		c.stop(g)
	}
	c.mu.Unlock()
	c.done.Wait()
}

// tellAll sends to every other node. A node without a server never owns, so it need not know.
func (d *daemon) tellAll(news core.Clients) {
	for _, n := range d.node.View().Config.Nodes {
		if n.Name != d.opt.Self.Name && !n.Witness {
			d.node.Send(n.Name, news)
		}
	}
}

// clientsBinder and clientsAnnouncer let the clientele know when a group is served and when it is given up.
type clientsBinder struct {
	agent.Binder
	clients *clientele
}

func (b clientsBinder) Unbind(ctx context.Context, a core.Unbind) error {
	err := b.Binder.Unbind(ctx, a)
	b.clients.given(a.Group, a.Epoch)
	return err
}

type clientsAnnouncer struct {
	agent.Announcer
	clients *clientele
}

func (n clientsAnnouncer) Announce(ctx context.Context, a core.Announce) error {
	err := n.Announcer.Announce(ctx, a)
	if err == nil {
		n.clients.announced(a)
	}
	return err
}
