// Package consensus is Remora's edge towards the other nodes: the Raft log that keeps the ledger, and the channel on
// which nodes report, confirm and acknowledge. It transports and persists. What the messages mean, and what may be
// granted when, is decided by package core, which gets core.Event values from here and gives back core.Send,
// core.Propose and core.TransferLeadership.
//
// # What runs over which wire
//
// One TCP port carries three protocols, told apart by ALPN, all under TLS 1.3 with certificates of the cluster's own CA
// on both sides. A certificate's common name and DNS name are the node's name, its organization is the cluster's. An IP
// address never identifies anybody.
//
//   - remora-raft/1: the calls of hashicorp/raft. The caller first names the Raft server that it wants.
//   - remora-control/1: streams for remote control, for whoever calls ListenControl and DialControl.
//   - remora-session/1: each node keeps one such connection to each peer. On it they tell each other who they are
//     (hello), and from its TLS keys come the keys of the datagrams that the dialing node sends. The receiver keeps the
//     last two sessions of each peer; the sender uses a key until the next one is there, so a broken TCP connection
//     does not stop the datagrams.
//
// The same port number over UDP carries reports, confirmations, echoes, acks and notices: one lost TCP segment would
// hold up all that follow for 200 ms, a lost datagram is made good by the next. Each is one AES-128-GCM message with a
// counter and a replay window.
//
// # Terms and votes
//
// A Raft server ID is the node's name, '#' and a random number that is made with the state directory. It is also the
// server's Raft address: nothing in Raft's log depends on IP addresses. A node that lost its disk comes back under
// another ID; calls for the old one are refused by it, and its echoes do not count until it votes. Otherwise a server
// without memory could stand in for one that has promised something.
//
// The term told with each datagram (core.Received) never falls behind a vote: it is the highest that this node has begun
// to move to, as its store saw it, and not Raft's own variable. The library handles heartbeats beside its main loop, and
// the two may set the term at once; see type store. raft.State, LeaderCh and VerifyLeader are used as hints only.
//
// # Entering a cluster
//
// Open takes part in nothing. After Start, a node with state starts Raft. A node without starts Raft only when another
// node's Raft configuration names its server ID. The first configuration is written by the first node by name, and only
// while every node of the file says that it is empty and has the same list of nodes. Once a node has state, empty nodes
// ask its leader to take them in: it adds them without a vote, waits until they have caught up, removes the server that
// had the same name and then gives them a vote. If a crash ends this in the middle, the next leader goes on: each step
// follows from what there is.
//
// # Time
//
// Every dial, handshake, read and write has a deadline of a few Raft heartbeats (see limits), and TCP_USER_TIMEOUT and
// keep-alives do the same for what the library leaves open, so a peer whose packets vanish is noticed as fast as one
// whose kernel sends a reset. A leader sends its empty heartbeats to all at once and rather seldom, for the sake of the
// processor; appends to a follower that is away are repeated at short intervals instead of the library's growing ones.
//
// # The store
//
// Log, term and vote are kept by bbolt, which needs two writes with a flush each for whatever it keeps. So entries go to a
// journal first, which needs one, and the database gets them a second after the last (see journal). An entry of 400 bytes is
// durable after 0.16 ms in the journal, and after 0.38 in the database (medians, ext4, 99 % below 0.5 and 1 ms). With raft-wal it
// is 0.17 ms, but version 0.4.0 can not be opened again once entries at the end of its log have been replaced: it takes the file
// that they were in for closed and misses the index that a closed file has. A new leader replaces entries whenever the old one had
// some that it could not commit. BenchmarkStore shows the figures of a machine, and Status those of the running node.
//
// A command waits for two disks, the leader's and one follower's, but not for one after the other: the followers are sent it
// while the leader writes it (see leaderLog).
package consensus
