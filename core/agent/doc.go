// Package agent runs a [core.Machine]: one loop owns it, takes events from a mailbox, keeps one timer and carries actions
// out through four small ports.
//
// The ports are the binder, the announcer, the consensus and the local MySQL server.
//
// The loop itself never waits for anything but its mailbox and its timer. Claims (bind, extend, probe, announce) of one
// group are carried out one after the other by a worker of that group. Giving up does not stand in that queue: every
// Unbind runs on a goroutine of its own, so a claim that hangs in the kernel does not delay it. What a claim that ends
// late may have done is undone by the machine, which unbinds again when the claim's end is known, and releases only then.
package agent
