// Package e2e tests the real binary in the laboratory of package lab: network namespaces on a bridge, real MariaDB
// servers, real Raft over TCP, real frames. What the daemons do is judged by observers that are independent of them: the
// kernel's address events in every namespace, the ARP frames on the bridge, a client's connections to the address, and,
// where a daemon dies or hangs, a prober that asks every node whether it answers.
//
// Two busy cores carry all of it, so the tests assert order and generous bounds. How fast things are is measured by
// `make gap`. Those that bound nothing below seconds run two at a time, see besides.
package e2e
