// Package core decides, for one node of a Remora cluster, what is to be done about the addresses that the cluster looks
// after. It is pure: no goroutine, clock, lock or socket, only the standard library's pure packages. Events and a time go
// into [Machine.Step], actions come out, so that a cluster can be simulated by the million.
//
// # Parts
//
//   - The ledger ([Ledger]) is the state that Raft replicates: the owner and epoch of each group, the configuration, the
//     history. Its Apply is deterministic and has no effect outside.
//   - The holder (holder.go) acts on every node: it binds, extends, announces and unbinds what the ledger gives this node.
//   - The arbiter (arbiter.go) acts on the Raft leader: it confirms leases, ranks candidates, proposes grants.
//   - Timing (timing.go) knows the durations and the relations that must hold between them.
//
// # The life of a holding
//
// A grant in the ledger names a node, a process of it (its incarnation) and a report of that process. The lease lasts TTL
// from the moment at which that report was sent. Each later report asks for a renewal; the arbiter acks it once a
// majority of voters have said since then that its term is still theirs, in a confirm round or by the report itself. Giving
// up has one order: stop renewing, close the fence, unbind, read back that the address is gone, ask for the release. The
// release and the successor's grant are one entry of the log. Without a release the arbiter waits until the last lease that
// it may have given is over, and the margin. A planned move is granted first (handover.go): with that the owner gives up, and
// the successor claims when it hears the request for the release.
//
// # Invariants
//
//	I1  One holder. At no instant do two nodes answer for the same address.
//	I2  Grants wait. Epoch e+1 is granted only after the release of e is committed, or the lease of e must be over on its
//	    holder, or e+1 goes to the same node. A handover is granted before that, and claimed only after it or with the word
//	    of e's owner that e has ended.
//	I3  Only what was granted. A node binds only what the ledger gives it, in the current epoch, inside its lease, with
//	    MySQL eligible for the role.
//	I4  No false announcement. A node announces only what it has bound in this epoch.
//	I5  Giving up waits for nothing but the kernel. Actions that claim carry a NotAfter; actions that give up never expire.
//	I6  Liveness. With a quorum and one eligible node every group is bound within bounds.
//	I7  Epochs only rise, over restarts and snapshots.
//	I8  The daemon is not trusted to be alive: the kernel holds the lease too.
//	I9  What Remora put into the kernel it finds again, and removes nothing else's.
//	I10 One writer: with promotion, a node is made writable only after the old writer is read-only, dead or fenced.
//
// I8 is the work of the fence that netio builds in the kernel; the machine's part is the order of Arm and Send. The
// machine's part of I10 is that it makes a server writable only inside the lease of its group, and chooses a successor on
// sets that do not move (choose.go, succession.go, promoting.go, switchover.go, localserver.go).
package core
