package netio

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/remora-ha/remora/core"
)

// view is what a running Watcher has read and reported. One goroutine owns it.
type view struct {
	w     *Watcher
	s     *session
	retry *time.Timer
	again *Alarm    // rings when what news are about may be read that came too soon
	early time.Time // until when news of addresses come too soon
	due   bool      // again is set
	// lastFailure is what was logged last, so that the log does not fill with the same line. It is forgotten at each sweep.
	lastFailure string

	targets    []netip.Prefix            // the addresses of all groups, in the order of the configuration
	interfaces []string                  // the interfaces of all groups, in the same order
	carried    map[string][]netip.Prefix // the addresses of each interface
	addrs      map[netip.Addr]core.AddressSeen
	links      map[string]core.LinkChanged
	indexes    map[string]link // the interfaces that exist, by name
	own        map[MAC]bool

	heard     chan report
	listeners map[ear]*openEar
	listening sync.WaitGroup
	recent    map[netip.Addr]claimant
	strange   stranger // the last one that was found not to be ours
}

// setGroups takes the Watcher's groups and reports the state of all of them.
func (v *view) setGroups() {
	v.w.mu.Lock()
	groups := v.w.groups
	v.w.mu.Unlock()
	v.targets, v.interfaces = nil, nil
	v.carried = make(map[string][]netip.Prefix)
	for _, g := range groups {
		name := v.w.cfg.Interface(g)
		if _, ok := v.carried[name]; !ok {
			v.interfaces = append(v.interfaces, name)
		}
		v.carried[name] = append(v.carried[name], g.Addresses...)
		v.targets = append(v.targets, g.Addresses...)
	}
	v.addrs = make(map[netip.Addr]core.AddressSeen)
	v.links = make(map[string]core.LinkChanged)
	v.recent = make(map[netip.Addr]claimant)
	v.readAll()
}

func (v *view) readAll() {
	v.readAddresses()
	v.readLinks()
}

// follow reads what a hint is about, unless it tells what is known already: every renewal makes the kernel repeat
// itself. A message that is out of date does no harm, for the kernel sends another after each change.
func (v *view) follow(h hint) {
	switch {
	case h.link:
		v.readLinks()
	case h.addr == nil:
		v.readAll()
	case !v.watched(h.addr.Local):
	case h.gone && v.knownAbsent(h.addr.Local): // of a thousand that go at once each is told by itself, and read with the first
	case h.gone || v.addrs[h.addr.Local] != v.seen(*h.addr):
		v.readSoon()
	}
}

// readSoon reads the addresses at once, unless that was done just before: then it waits, and reads for all that comes meanwhile.
func (v *view) readSoon() {
	if v.due {
		return
	}
	if wait := time.Until(v.early); wait > 0 {
		v.due = true
		v.again.Reset(wait)
		return
	}
	begun := time.Now()
	v.readAddresses()
	now := time.Now()
	v.early = now.Add(min((readShare-1)*now.Sub(begun), newsWait))
}

func (v *view) readAgain() {
	v.due = false
	v.readSoon()
}

// watched reports whether an address is one of the groups'. One that could not be read yet is not known, and a target.
func (v *view) watched(ip netip.Addr) bool {
	_, known := v.addrs[ip]
	return known || contains(v.targets, ip)
}

// knownAbsent reports whether the last reading found no copy of an address. What was not read yet is not known.
func (v *view) knownAbsent(ip netip.Addr) bool {
	was, known := v.addrs[ip]
	return known && !was.Present
}

// seen is what would be reported if a were the only copy of its address.
func (v *view) seen(a address) core.AddressSeen {
	return core.AddressSeen{Address: a.Local, Present: true, Ours: a.ours(v.w.cfg.Label)}
}

func (v *view) readAddresses() {
	found, err := v.s.copies(v.targets)
	if err != nil {
		v.failed("addresses", err)
		return
	}
	copies := make(map[netip.Addr][]address, len(found))
	for _, a := range found {
		copies[a.Local] = append(copies[a.Local], a)
	}
	var news core.AddressesSeen
	for _, p := range v.targets {
		now := core.AddressSeen{Address: p.Addr()}
		now.Present, now.Ours = presence(copies[p.Addr()], p.Addr(), v.w.cfg.Label)
		if was, known := v.addrs[p.Addr()]; !known || was != now {
			v.addrs[p.Addr()] = now
			news = append(news, now)
		}
	}
	if len(news) > 0 {
		v.w.cfg.Deliver(news)
	}
}

func (v *view) readLinks() {
	all, err := v.s.links()
	if err != nil {
		v.failed("interfaces", err)
		return
	}
	v.own = macs(all)
	v.indexes = make(map[string]link, len(all))
	for _, l := range all {
		v.indexes[l.Name] = l
	}
	for _, name := range v.interfaces {
		l, ok := v.indexes[name]
		v.report(name, l, ok)
	}
	v.syncListeners()
}

// checkCarriers looks at the interfaces in use alone, which is cheap.
func (v *view) checkCarriers() {
	for _, name := range v.interfaces {
		l, err := v.s.link(name)
		missing := errors.Is(err, ErrNoInterface)
		if err != nil && !missing {
			v.failed("interface "+name, err)
			return
		}
		if old := v.indexes[name]; l != old && (old.Index != l.Index || old.MAC != l.MAC) {
			v.readLinks() // an interface came, went or was made again
			return
		}
		v.report(name, l, !missing)
	}
}

func (v *view) report(name string, l link, exists bool) {
	now := core.LinkChanged{Interface: name, Up: exists && l.up(), Missing: !exists}
	if was, known := v.links[name]; !known || was != now {
		v.links[name] = now
		v.w.cfg.Deliver(now)
	}
}

// failed notes that something could not be read. Nothing is reported of it, for what is not known is not gone; it is
// tried again soon, with a new socket.
func (v *view) failed(what string, err error) {
	if failure := what + ": " + err.Error(); failure != v.lastFailure {
		v.lastFailure = failure
		v.w.cfg.Logger.Warn("can not watch; trying again", "what", what, "err", err)
	}
	if v.s.broken {
		if fresh, err := newSession(); err == nil {
			_ = v.s.close() // broken
			v.s = fresh
		}
	}
	v.retry.Reset(retryEvery)
}
