// Package metrics offers what a daemon knows of itself to Prometheus.
//
// What happens often is counted where it happens, without a lock that anybody else holds for long. Everything else is read from
// a copy of the daemon's status that is at most a second old, so that no scraper, however greedy, costs the agent's loop more
// than one status a second. docs/metrics.md explains every name.
package metrics
