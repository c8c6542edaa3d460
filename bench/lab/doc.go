// Package lab builds a laboratory for Remora on one Linux machine: nodes, a client and a router in network namespaces
// of their own, joined by a bridge, with real database servers, real daemons, faults and observers that do not ask the
// daemons what happened. Tests, the demo and the benchmarks share it. It needs root.
//
//	db1 10.77.0.11 ──┐
//	db2 10.77.0.12 ──┤                    ┌── client 10.77.0.200
//	db3 10.77.0.13 ──┼── bridge in the ───┤
//	mgr 10.77.0.20 ──┘ switch namespace   └── router 10.77.0.1
//
// Each has an IPv6 address besides, fd77:: and the last number.
//
// Nothing but the names of the namespaces appears outside of the namespaces, so several laboratories can be up at once.
//
// # Life
//
// [New] builds the network and starts the observers of addresses and announcements. [Lab.Up] starts the servers, their
// replication ring and the daemons; [Lab.StartStream] starts the client. [Lab.Close] removes everything. What was
// started is written to a state file first, with the start time of each process, so that [Sweep] can remove what a
// crashed run left and nothing else.
//
// # Observers
//
// All observers stamp with this machine's clock.
//
//   - Addresses: one rtnetlink socket hears every namespace of the laboratory, so the kernel itself puts the events in
//     one order. Whether two nodes held an address at once is judged by that order and is exact; the time of an event is
//     when it was read, usually a few ten microseconds later and some milliseconds on a busy machine.
//   - Announcements: packet sockets on the bridge with the kernel's time stamps read ARP and, where a VIP is an IPv6 address,
//     neighbour advertisements.
//   - Prober: asks every node by its own hardware address, in unicast frames every millisecond, whether it answers ARP (for IPv6
//     neighbour solicitations), ICMP and TCP for an address, and stamps the answers with the kernel's time. Who answers is what counts: an address
//     may stay bound on a node whose daemon is dead, behind a fence that lets nobody reach it. [Answers.DoubleAnswers]
//     finds a node that answers a question that was sent after another one's first answer. [Lab.Strike] kills or freezes
//     the owner's daemon under its eyes.
//   - Client: one thread with its own event loop opens a new TCP connection every millisecond or two, reads the server's
//     greeting, which names the server, and closes; there may be one for each address. A second, slower stream logs in and asks for @@server_id.
//
// # Faults
//
// Processes are killed, stopped and continued by signals. Frames are dropped by nftables inside the bridge, where no
// node can notice it but by silence. A link is put down on the switch's side, like a pulled cable, or on the node's.
package lab
