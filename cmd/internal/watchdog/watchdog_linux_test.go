package watchdog

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// fake is a device that records what is done to it.
type fake struct {
	calls   []string
	support Support
	timeout int
	takes   int // the time that it takes whatever is asked for, 0 if it does as it is told
	fails   string
}

var errFake = errors.New("on purpose")

func (f *fake) do(call string) error {
	f.calls = append(f.calls, call)
	if f.fails == call {
		return errFake
	}
	return nil
}

func (f *fake) Support() (Support, error) { return f.support, f.do("support") }
func (f *fake) SetTimeout(n int) error {
	f.timeout = n
	if f.takes != 0 {
		f.timeout = f.takes
	}
	return f.do("settimeout")
}
func (f *fake) Timeout() (int, error)       { return f.timeout, f.do("gettimeout") }
func (f *fake) KeepAlive() error            { return f.do("keepalive") }
func (f *fake) Write(b []byte) (int, error) { return len(b), f.do("write " + string(b)) }
func (f *fake) Close() error                { return f.do("close") }

var whole = Support{Identity: "fake", MagicClose: true, SetTimeout: true}

func newDog(f *fake, now *time.Time) *Dog {
	return New(Config{Path: "/dev/watchdog", Timeout: 10 * time.Second, Clock: func() time.Time { return *now },
		Open: func(string) (Device, error) { return f, f.do("open") }})
}

func expect(t *testing.T, f *fake, want ...string) {
	t.Helper()
	if !slices.Equal(f.calls, want) {
		t.Errorf("the device saw %q, want %q", f.calls, want)
	}
	f.calls = nil
}

// It is opened only when it is armed, gets a sign of life four times within its own time, and V before the close.
func TestLifeOfAnArmedDevice(t *testing.T) {
	f, now := &fake{support: whole}, time.Unix(1, 0)
	d := newDog(f, &now)
	must(t, d.Alive())
	must(t, d.Disarm())
	expect(t, f)
	must(t, d.Arm())
	expect(t, f, "open", "support", "settimeout", "gettimeout", "keepalive")
	for range 100 { // ten seconds of a loop that turns ten times a second
		now = now.Add(100 * time.Millisecond)
		must(t, d.Alive())
	}
	expect(t, f, "keepalive", "keepalive", "keepalive", "keepalive")
	if !d.Armed() {
		t.Error("it is not armed")
	}
	must(t, d.Disarm())
	must(t, d.Alive())
	must(t, d.Disarm())
	expect(t, f, "write V", "close")
}

// A check leaves the device disarmed, and an armed one alone.
func TestCheckLeavesNothingRunning(t *testing.T) {
	f, now := &fake{support: whole}, time.Unix(1, 0)
	d := newDog(f, &now)
	must(t, d.Check())
	expect(t, f, "open", "support", "settimeout", "gettimeout", "write V", "close")
	must(t, d.Arm())
	f.calls = nil
	must(t, d.Check())
	expect(t, f)
}

// A device that can not do what is needed is refused, disarmed, and the reason says what to do.
func TestUnfitDevicesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		dev  fake
		says string
	}{
		"no magic close":    {fake{support: Support{Identity: "old", SetTimeout: true}}, "nowayout=0"},
		"no way out":        {fake{support: Support{Identity: "new", SetTimeout: true, MagicClose: true, NoWayOut: true}}, "nowayout=0"},
		"longer time":       {fake{support: whole, takes: 60}, "waits 60 s"},
		"fixed longer time": {fake{support: Support{Identity: "rigid", MagicClose: true}, timeout: 30}, "waits 30 s"},
		"ioctl fails":       {fake{support: whole, fails: "settimeout"}, "on purpose"},
	} {
		t.Run(name, func(t *testing.T) {
			f, now := c.dev, time.Unix(1, 0)
			d := newDog(&f, &now)
			for _, try := range []func() error{d.Check, d.Arm} {
				if err := try(); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want one that says %q", err, c.says)
				}
				if !slices.Equal(f.calls[len(f.calls)-2:], []string{"write V", "close"}) {
					t.Errorf("the device saw %q", f.calls)
				}
			}
			if d.Armed() {
				t.Error("it is armed")
			}
		})
	}
}

// A shorter time than asked for is taken, and signs of life come accordingly.
func TestShorterTimeIsTaken(t *testing.T) {
	f, now := &fake{support: whole, takes: 4}, time.Unix(1, 0)
	d := newDog(f, &now)
	must(t, d.Arm())
	f.calls = nil
	now = now.Add(time.Second)
	must(t, d.Alive())
	expect(t, f, "keepalive")
}

// The loop does not wait for a driver that hangs in open.
func TestAliveDoesNotWait(t *testing.T) {
	inside, goOn := make(chan struct{}), make(chan struct{})
	d := New(Config{Timeout: time.Second, Open: func(string) (Device, error) {
		close(inside)
		<-goOn
		return nil, errFake
	}})
	done := make(chan error, 1)
	go func() { done <- d.Arm() }()
	<-inside
	must(t, d.Alive())
	must(t, d.Disarm())
	close(goOn)
	if err := <-done; !errors.Is(err, errFake) {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
