// Package sim runs clusters of 3, 5 and 7 nodes in virtual time. Every node is the real [core.Machine] with the real
// ledger; all around it is a model: clocks, network, disk, Raft, kernel, MySQL, operators, and what goes wrong with them.
// Oracles look at everything in true time after every step and know nothing of how the machine decides.
//
//	go test ./core/sim                                 the default number of seeds, and all broken rules
//	go test ./core/sim -run TestSeeds -seeds 100000    more; as many as make test runs
//	go test ./core/sim -run TestReplay -seed 4711 -v   one seed again, every step in columns
//	go run ./core/sim/cmd/remora-sim -seeds 100000     the same outside of the tests, with figures
//
// A run depends on its [Options] alone. The seed chooses the size of the cluster, the timing, the quality of the network,
// which kinds of faults there are and when. Its faults end at some time; then the cluster must come to rest (I6).
//
// # The model
//
//   - Time: each clock has its own offset and a rate up to 1 % off, often just that much (clock.go).
//   - Network: datagrams are lost, delayed, reordered and duplicated; links are cut in one direction or both.
//   - Raft (raft.go, raft_leader.go): terms, votes and logs that a crash leaves, majorities, snapshots, elections with and
//     without a question in advance, leaders that do not know of their successor because the disk stands still or the
//     news does not get through, proposals whose end is not known or that are carried out long after they were made.
//   - The process: its mailbox, its timer, one worker for the claims of each group, one for reports. It may be killed,
//     frozen or suspended at any time. Half of its system calls go on in the kernel without it.
//   - A failover manager (advise.go) that stops and starts at random, in the wrong order, late, or dies in between; no stop may
//     be answered while the node that it is about still answers for the group's addresses (I2).
//   - The kernel outlives the process: addresses and the fence (fence.go), slow, failing and hanging calls, people who add
//     and delete addresses and flush the fence.
//   - MySQL's servers, in two of ten seeds (servers.go): one group has policy promote. Servers count their transactions,
//     receive and apply with delays, in three of ten such seeds with long ones, die and come back read-only or not, refuse,
//     and are asked by the daemon to stop receiving, to become writable or read-only, and to follow another. Clients write
//     and remember what was acknowledged. Where replicas are slow, operators waver: they end a switchover and ask for it again.
//   - A failover manager, in a quarter of all seeds (modes.go): all groups have policy follow and one server is writable. It begins
//     planned changes and is killed in the middle of some. Of servers nothing but the mode is simulated there.
//
// In three of ten seeds the kernel has no fence. Then the faults that only a fence masters are left out: killed and frozen
// processes, and system calls that take longer than the time kept in hand for them.
// In one of 25 seeds most kernels have address lifetimes and no fence, late ones, and all faults (lifetime.go); there claims
// are in the kernel once the process has looked at the clock.
//
// # The oracles
//
// oracle.go has those that see the whole cluster (I1, I2, I7, I9, and I6 at the end), watch.go those that keep a second,
// plain reckoning of what one process was told and has asked for (I3, I4, I5), oracle_servers.go what I10 asks for: a
// server becomes writable only by a lease that is alive, nothing is bound before, a choice drops nothing of those on whose
// word it rests, a planned switchover loses nothing that was acknowledged, and none is set aside without a reason. I8 has
// none of its own: I1 is asserted for killed and frozen processes as well. breaks.go breaks rules of the protocol on
// purpose, and the tests require that each oracle, with all others switched off, sees them within a bounded number of
// seeds, and sees nothing in the same run when the rule is kept.
//
// # What is not simulated
//
// A machine that is paused with its kernel; a fence that is flushed while its process is frozen; an address that the
// configuration no longer has and that is bound all the same, which the real fence lets pass; changes of the voters;
// IPv6, and the time that frames spend on the wire.
package sim
