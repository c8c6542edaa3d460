// Package pki makes and checks the certificates by which the nodes of a cluster know one another.
//
// One certificate authority stands for one cluster. It signs one certificate for each node, whose common name and DNS
// name are the node's name and whose organisation is the cluster's. A node shows it both as server and as client, so a
// connection between two nodes proves both ends. All keys are ECDSA on P-256.
//
// The authority is valid for 10 years, a node's certificate for 2 years; both begin an hour before they are made, so
// that a clock that is a little slow elsewhere does not refuse them. The authority's key is needed only to issue: keep
// it off the nodes.
//
// Any other authority will do as well, as long as its certificates carry the node's name as common name and as DNS name,
// the cluster's as organisation, and are allowed for server and client use.
package pki
