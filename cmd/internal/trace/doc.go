// Package trace remembers when what happened in a takeover, and shows where the milliseconds went.
//
// A takeover has up to three parts: the old owner gives up, the arbiter decides, the new owner claims. Each node keeps a
// [Piece] of its own part in memory, a [Recorder] of the last takeovers; no piece survives its process. A piece has
// readings of one clock only, the lease clock of its node, at which durations are exact. The clocks of two nodes are never
// compared. [Join] puts pieces beside one another by group and epoch.
//
// What lies between two parts is a datagram on its way, and no clock sees both of its ends. But the sender of one hears
// of its consequence: the old owner asks for the release and hears of the grant, the arbiter tells of the grant and hears
// that it is served. From that time, measured on its clock, the other's part, measured on that one's, is taken away; what is
// left is the way there and back. So the whole is known within bounds, with no way counted and with the ways back too.
//
// The instant of the fault and the first answer to a client are known to an outside observer only.
package trace
