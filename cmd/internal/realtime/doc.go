// Package realtime keeps a busy host from costing a lease: it gives the process a scheduling class of its own and locks its
// pages in memory. Neither is needed for safety, which rests on the kernel and the clock. So what can not be had is said,
// with what would have to be done for it, and the daemon goes on without.
package realtime
