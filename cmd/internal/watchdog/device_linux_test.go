package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The real implementation does to a device node what the interface says.
func TestRealDevice(t *testing.T) {
	n := newNode(t)
	d := New(Config{Path: n.path, Timeout: 10 * time.Second})
	must(t, d.Check())
	n.expect(t, "open", "support", "settimeout 10", "gettimeout", "write V", "close")
	must(t, d.Arm())
	n.expect(t, "open", "support", "settimeout 10", "gettimeout", "keepalive")
	must(t, d.Arm())
	n.expect(t, "keepalive")
	must(t, d.Disarm())
	n.expect(t, "write V", "close")

	n.change(func() { n.takes = 60 })
	if err := d.Arm(); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), `"fake node" waits 60 s`) {
		t.Errorf("a device that waits longer: %v", err)
	}
	n.expect(t, "open", "support", "settimeout 10", "gettimeout", "write V", "close")
	n.change(func() { n.takes, n.info.Options = 0, unix.WDIOF_SETTIMEOUT })
	if err := d.Arm(); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "nowayout=0") {
		t.Errorf("a device that can not be disarmed: %v", err)
	}
	n.expect(t, "open", "support", "write V", "close")
	n.change(func() { n.info.Options, n.time = unix.WDIOF_MAGICCLOSE, 5 })
	must(t, d.Arm()) // its time can not be set, and is short enough
	n.expect(t, "open", "support", "gettimeout", "keepalive")
	must(t, d.Disarm())
}

// The real implementation tells a file that is no watchdog, and one that is not there.
func TestRealDeviceErrors(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "watchdog")
	must(t, os.WriteFile(plain, nil, 0o600))
	d := New(Config{Path: plain, Timeout: 10 * time.Second})
	if err := d.Check(); !errors.Is(err, ErrUnfit) || !errors.Is(err, unix.ENOTTY) {
		t.Errorf("a plain file: %v", err)
	}
	b, err := os.ReadFile(plain)
	if err != nil || string(b) != "V" {
		t.Errorf("the plain file got %q (%v), want the V of a close", b, err)
	}
	missing := New(Config{Path: plain + "0", Timeout: 10 * time.Second})
	if err := missing.Arm(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "load its driver") {
		t.Errorf("a missing device: %v", err)
	}
}

// The kernel's own software watchdog, where this machine has one. Any other would reset the machine if the test failed.
func TestSoftdog(t *testing.T) {
	const path = "/dev/watchdog"
	identity, err := os.ReadFile("/sys/class/watchdog/watchdog0/identity")
	if !strings.Contains(string(identity), "Software Watchdog") {
		t.Logf("this machine has no software watchdog (%q, %v): the ioctls were tried on the fake one only", strings.TrimSpace(string(identity)), err)
		if os.Getenv("REMORA_WATCHDOG") == "require" {
			t.Error("REMORA_WATCHDOG=require asks for one: modprobe softdog")
		}
		return
	}
	d := New(Config{Path: path, Timeout: 30 * time.Second})
	must(t, d.Check())
	must(t, d.Arm())
	must(t, d.Arm())
	must(t, d.Disarm())
}
