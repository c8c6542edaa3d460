package watchdog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is a real watchdog device.
type device struct {
	f *os.File
}

// Open opens a watchdog device, which starts it.
func Open(path string) (Device, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the watchdog: %w", err)
	}
	return device{f}, nil
}

func (d device) fd() int { return int(d.f.Fd()) }

// Support asks for WDIOC_GETSUPPORT. The structure is struct watchdog_info of linux/watchdog.h.
func (d device) Support() (Support, error) {
	var info struct {
		options  uint32
		firmware uint32
		identity [32]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.WDIOC_GETSUPPORT, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return Support{}, fmt.Errorf("ask what the watchdog can do (WDIOC_GETSUPPORT): %w", errno)
	}
	name, _, _ := bytes.Cut(info.identity[:], []byte{0})
	s := Support{
		Identity: string(name), MagicClose: info.options&unix.WDIOF_MAGICCLOSE != 0, SetTimeout: info.options&unix.WDIOF_SETTIMEOUT != 0,
	}
	s.NoWayOut = noWayOut(d.f.Name())
	return s, nil
}

// noWayOut reports whether the kernel says that the device can not be disarmed. That /dev/watchdog is the first one is the
// kernel's custom (watchdog_dev.c).
func noWayOut(path string) bool {
	name := filepath.Base(path)
	if name == "watchdog" {
		name = "watchdog0"
	}
	b, err := os.ReadFile(filepath.Join("/sys/class/watchdog", name, "nowayout"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// SetTimeout asks for a time with WDIOC_SETTIMEOUT; the driver may take another.
func (d device) SetTimeout(seconds int) error {
	if err := unix.IoctlSetPointerInt(d.fd(), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return fmt.Errorf("set the watchdog's time to %d s (WDIOC_SETTIMEOUT): %w", seconds, err)
	}
	return nil
}

func (d device) Timeout() (int, error) {
	n, err := unix.IoctlGetInt(d.fd(), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return 0, fmt.Errorf("read the watchdog's time (WDIOC_GETTIMEOUT): %w", err)
	}
	return n, nil
}

func (d device) KeepAlive() error {
	if err := unix.IoctlWatchdogKeepalive(d.fd()); err != nil {
		return fmt.Errorf("give the watchdog a sign of life (WDIOC_KEEPALIVE): %w", err)
	}
	return nil
}

func (d device) Write(b []byte) (int, error) { return d.f.Write(b) }

func (d device) Close() error { return d.f.Close() }
