// Package control is how operators and other nodes speak to a running daemon.
//
// Requests and replies are lines of JSON, one object each, over any stream: the unix socket of the daemon for the
// commands of this machine, or a control stream over mutual TLS from another node, which forwards what only the leader
// can do. Both ends state the version of the protocol. A stream carries any number of requests, one after the other.
//
//	{"remora":1,"op":"switchover","timeout_ms":9500,"args":{"group":"writer","to":"db2"}}
//	{"remora":1,"result":{"group":"writer","from":"db1","to":"db2","epoch":9,"took_ms":7}}
//	{"remora":1,"error":{"code":"refused","text":"db2 could not serve: MySQL failed"}}
//
// The daemon implements Backend. Server carries requests to it, under bounds: the number of streams, the length of a
// line, and the time for each request, operation and reply, so that a client that is slow or malicious takes nothing from
// anybody else. Client is a Backend too, at the other end of a stream.
//
// Status is the documented picture of a cluster (docs/status.md); WriteText shows it to people.
package control
