package watchdog

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Support is what a device says of itself.
type Support struct {
	Identity string
	// MagicClose says that a V before the close disarms the device, SetTimeout that its time can be set.
	MagicClose, SetTimeout bool
	// NoWayOut says that nothing disarms it.
	NoWayOut bool
}

// Device is an open watchdog device, as the kernel's watchdog API has it.
type Device interface {
	Support() (Support, error)
	// SetTimeout and Timeout count whole seconds. The driver may take another time than it was asked for.
	SetTimeout(seconds int) error
	Timeout() (seconds int, err error)
	KeepAlive() error
	Write([]byte) (int, error)
	Close() error
}

// Config says which device is kept.
type Config struct {
	Path string
	// Timeout is asked of the device, in whole seconds.
	Timeout time.Duration
	// Open opens the device; nil means the real one.
	Open func(path string) (Device, error)
	// Clock measures the time between signs of life; nil means time.Now.
	Clock func() time.Time
}

// Dog keeps one device. Its methods may be called from any goroutine.
type Dog struct {
	cfg   Config
	mu    sync.Mutex
	dev   Device // nil while it is not armed
	every time.Duration
	last  time.Time
}

// ErrUnfit means that a device exists and can not be used.
var ErrUnfit = errors.New("the watchdog can not be used")

// New returns a Dog that has opened nothing.
func New(cfg Config) *Dog {
	if cfg.Open == nil {
		cfg.Open = Open
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Dog{cfg: cfg}
}

// Check finds out whether the device could be armed, without leaving it so: it is opened, set, and disarmed again. An armed
// one is well.
func (d *Dog) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dev != nil {
		return nil
	}
	dev, _, err := d.open()
	if err != nil {
		return err
	}
	return disarm(dev)
}

// Arm starts the device, before an address is bound. If it is started already this is a sign of life.
func (d *Dog) Arm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dev != nil {
		return d.alive()
	}
	dev, seconds, err := d.open()
	if err != nil {
		return err
	}
	d.dev = dev
	d.every = time.Duration(seconds) * time.Second / 4
	return d.alive()
}

// open opens the device and sets its time. A device that could not be disarmed again is refused, though by then there may be
// no way out: what opens it for a look has started it.
func (d *Dog) open() (Device, int, error) {
	dev, err := d.cfg.Open(d.cfg.Path)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: load its driver (softdog, iTCO_wdt, i6300esb) and let the daemon's user write to it", err)
	}
	seconds, err := d.prepare(dev)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("%w: %s: %w", ErrUnfit, d.cfg.Path, err), disarm(dev))
	}
	return dev, seconds, nil
}

func (d *Dog) prepare(dev Device) (int, error) {
	s, err := dev.Support()
	if err != nil {
		return 0, err
	}
	if !s.MagicClose || s.NoWayOut {
		return 0, fmt.Errorf("%q can not be disarmed and would reset the machine after each switchover: load its driver with nowayout=0", s.Identity)
	}
	want := int(d.cfg.Timeout / time.Second)
	if s.SetTimeout {
		if err := dev.SetTimeout(want); err != nil {
			return 0, err
		}
	}
	got, err := dev.Timeout()
	if err != nil {
		return 0, err
	}
	if got < 1 || got > want {
		return 0, fmt.Errorf("%q waits %d s for a sign of life, not %d s or less: set watchdog_timeout to what it can do", s.Identity, got, want)
	}
	return got, nil
}

// Alive gives a sign of life if it is time for one. It never waits for somebody who is arming or checking the device, since
// it is called by a loop that must not stand still.
func (d *Dog) Alive() error {
	if !d.mu.TryLock() {
		return nil
	}
	defer d.mu.Unlock()
	if d.dev == nil || d.cfg.Clock().Sub(d.last) < d.every {
		return nil
	}
	return d.alive()
}

func (d *Dog) alive() error {
	if err := d.dev.KeepAlive(); err != nil {
		return err
	}
	d.last = d.cfg.Clock()
	return nil
}

// Disarm stops the device, once nothing is bound any more. It does nothing while somebody else is at the device; call it
// again.
func (d *Dog) Disarm() error {
	if !d.mu.TryLock() {
		return nil
	}
	defer d.mu.Unlock()
	if d.dev == nil {
		return nil
	}
	dev := d.dev
	d.dev = nil
	return disarm(dev)
}

// Armed reports whether the device runs.
func (d *Dog) Armed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dev != nil
}

func disarm(dev Device) error {
	_, err := dev.Write([]byte{'V'})
	if err != nil {
		err = fmt.Errorf("disarm the watchdog: %w", err)
	}
	return errors.Join(err, dev.Close())
}
