// Package gtid holds the sets of transactions that servers print, and answers the two questions that a failover asks of
// them: has this server all that that one has, and if not, how many transactions are missing.
//
// MySQL names a set: intervals of sequence numbers for each server's UUID and, from 8.3 on, for each tag
// (3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7:audit:1-3). All questions have exact answers.
//
// MariaDB names a position: for each replication domain the last transaction (0-1-42 is domain 0, server 1, sequence 42).
// It stands for everything up to that sequence number in the domain, which is right as long as each domain has one writer
// at a time. Two servers whose last transaction in a domain has the same sequence number but another server have forked.
// A fork further back cannot be seen in two positions; the receiver of a replica that is made to follow over it stops
// with error 1236, which is why FollowServer reads back that replication runs.
//
// The package is pure, and part of what core may import. A Set is a value: no method changes it. Text that was cut
// somewhere must not be parsed: a cut set is smaller than the real one and would let a server look further behind, or a
// transaction look as if nobody had it.
package gtid
