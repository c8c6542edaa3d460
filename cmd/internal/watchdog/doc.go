// Package watchdog keeps a watchdog device (/dev/watchdog): hardware, or a hypervisor's or kernel's imitation of it, that
// resets the machine unless it gets a sign of life within a time of whole seconds.
//
// The device is open only while this node may answer for an address. It is opened before an address is bound, gets signs
// of life from the loop that keeps the leases as long as those stand, and is disarmed when the last address was read back as
// gone: by the letter V before the close (Linux' Documentation/watchdog/watchdog-api.rst, "magic close"). A process that
// dies, or that can not unbind what it has given up, writes no V.
package watchdog
