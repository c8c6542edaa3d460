// Package daemon wires one node together and carries it through its life: start, reload, orderly end.
//
// The order of the start is part of the safety: what an earlier process left in the kernel is removed first; then this
// node listens and reports, but takes no part (no vote, no echo, no grant) until every promise that an earlier process
// may have made is over; then Raft starts. The end is the same backwards: unbind, read back, release, hand leadership on,
// and only then Raft, the sockets and the process.
package daemon
