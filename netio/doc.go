// Package netio binds, extends, announces and gives up addresses on Linux, and watches the links that carry them.
//
// A [Binder] carries out the actions of core that touch the kernel, a [Watcher] reports what happens there. Both speak
// rtnetlink and AF_PACKET directly; no external program is run.
//
// # Claiming and giving up
//
// Bind, Extend, Probe and Announce claim. Each claim looks at the clock and at its group's gate right before every
// system call that has an effect, and returns [ErrLate] if it is late. Bind and Extend look once more after the last one, and
// take back what they did if they are late by then; a frame that is sent can not be taken back. Arm, which opens the fence for
// what was renewed, looks at the gate alone: how long it opens was decided when the report was armed. Unbind gives up: it never looks at the clock, it is not called off by its context, it has a netlink socket
// of its own, and it shares no lock with a claim that is held over I/O. A bind that hangs can not delay it.
//
// Unbind of epoch e first closes the group's gate for all epochs up to e, so that a claim of such an epoch that is on
// its way does not reach the kernel any more. One window is left: a claim that has passed the gate and is stopped right
// before its system call. When it runs on, it adds the address, finds the gate closed and removes the address again.
// Therefore Bind and Extend never return before their last system call is over, and core waits for the BindDone of a
// pending Bind and unbinds once more before it reports anything as given up. Together there is no hole.
//
// # The kernel's own lease
//
// Addresses carry a valid lifetime (IFA_CACHEINFO), so that the kernel removes them when nobody renews them: after a
// kill -9, say. It counts whole seconds, may be late by more than one, and does not count while the machine sleeps.
// That makes it a backstop, not the lease.
//
// A renewal is a replacement (NLM_F_REPLACE), and the kernel adds an address that it is asked to replace and does not
// have. See [Binder.Extend] for why that does not bring an address back.
//
// # Ours
//
// Addresses are marked with the protocol number [MarkProtocol] (IFA_PROTO, Linux 5.18). That is how a later process
// finds them again, and nothing else's. An older kernel drops the mark without a word; there a label, if configured,
// stands in for it on IPv4, and without one a leftover address goes only when its lifetime ends.
//
// An address that was bound by hand, on whatever interface, is taken over in place: it gets mark and lifetime. After
// Bind every copy of an address is ours, and Unbind removes every copy.
//
// # Watching
//
// Messages of the kernel are hints. The watcher reads the state again and reports the differences, so that a lost
// message, or two that cancel out, do no harm.
package netio
