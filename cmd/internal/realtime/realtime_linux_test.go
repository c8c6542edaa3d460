package realtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Everything here changes the whole process, so each case runs in one of its own.
const asked = "REMORA_REALTIME_CASE"

func TestMain(m *testing.M) {
	if name := os.Getenv(asked); name != "" {
		if err := cases[name](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("well")
		return
	}
	os.Exit(m.Run())
}

var cases = map[string]func() error{
	"every thread is in the class, also those that come later": func() error {
		have, err := Schedule(RR, 1)
		if err != nil || have != "rr:1" {
			return fmt.Errorf("have %q: %w", have, err)
		}
		hold := make(chan struct{})
		defer close(hold)
		ready := make(chan struct{})
		for range 8 { // each needs a thread
			go func() { runtime.LockOSThread(); ready <- struct{}{}; <-hold }()
		}
		for range 8 {
			<-ready
		}
		tids, err := threads()
		if err != nil {
			return err
		}
		if len(tids) < 9 {
			return fmt.Errorf("only %d threads", len(tids))
		}
		for _, tid := range tids {
			a, err := unix.SchedGetAttr(tid, 0)
			if err != nil || a.Policy != unix.SCHED_RR || a.Priority != 1 {
				return fmt.Errorf("thread %d: %+v: %w", tid, a, err)
			}
		}
		return nil
	},
	"without the right it says what is missing and goes on": func() error {
		if err := dropRights(); err != nil {
			return err
		}
		have, err := Schedule(FIFO, 7)
		if err == nil || !strings.Contains(err.Error(), "LimitRTPRIO=7") || !errors.Is(err, unix.EPERM) || !strings.HasPrefix(have, "nice:") {
			return fmt.Errorf("have %q, error %w", have, err)
		}
		if _, err := Schedule(Nice, -19); err == nil || !strings.Contains(err.Error(), "LimitNICE") {
			return fmt.Errorf("nice: %w", err)
		}
		return nil
	},
	"the session that it leads has its nice value": func() error {
		if !grouped() {
			return nil
		}
		if _, err := unix.Setsid(); err != nil {
			return err
		}
		if have, err := Schedule(Nice, -5); err != nil || have != "nice:-5" {
			return fmt.Errorf("have %q: %w", have, err)
		}
		if err := sessionHas("nice -5"); err != nil {
			return err
		}
		if _, err := Schedule(Nice, -2); err != nil {
			return err
		}
		return sessionHas("nice -5") // a session that has more already keeps it
	},
	"a session that others lead stays as it is": func() error {
		if !grouped() {
			return nil
		}
		before, err := os.ReadFile(autogroupFile)
		if err != nil {
			return err
		}
		if _, err := Schedule(Nice, -5); err != nil {
			return err
		}
		return sessionHas(string(before))
	},
	"a session that may not be changed is told of": func() error {
		if !grouped() {
			return nil
		}
		if _, err := unix.Setsid(); err != nil {
			return err
		}
		if err := dropRights(); err != nil {
			return err
		}
		err := niceSession(-5)
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "LimitNICE=-5") {
			return fmt.Errorf("told %w", err)
		}
		return nil
	},
	"a limit that would end the process later is refused": func() error {
		if err := dropRights(); err != nil {
			return err
		}
		locked, err := LockMemory(LockTouched)
		if !errors.Is(err, ErrLimit) || locked != LockNothing || !strings.Contains(err.Error(), "LimitMEMLOCK") {
			return fmt.Errorf("locked %q, error %w", locked, err)
		}
		// The process must still be able to grow.
		big := make([]byte, 64<<20)
		for i := 0; i < len(big); i += 4096 {
			big[i] = 1
		}
		return nil
	},
	"what is touched is locked and the rest of the address space is not": func() error {
		if locked, err := LockMemory(LockTouched); err != nil || locked != LockTouched {
			return fmt.Errorf("locked %q: %w", locked, err)
		}
		keep := make([]byte, 8<<20)
		for i := 0; i < len(keep); i += 4096 {
			keep[i] = 1
		}
		debug.FreeOSMemory() // locked pages can not be given back; that must do no harm
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		var lockedKB, rssKB, sizeKB int
		for line := range strings.Lines(string(b)) {
			_, _ = fmt.Sscanf(line, "VmLck: %d kB", &lockedKB)
			_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &rssKB)
			_, _ = fmt.Sscanf(line, "VmSize: %d kB", &sizeKB)
		}
		runtime.KeepAlive(keep)
		if lockedKB < 8<<10 || rssKB > 100<<10 || rssKB > sizeKB/2 {
			return fmt.Errorf("locked %d kB, resident %d kB of %d kB", lockedKB, rssKB, sizeKB)
		}
		return nil
	},
}

// grouped reports whether this kernel shares the processors out by sessions: elsewhere there is nothing to hold.
func grouped() bool {
	text, err := os.ReadFile(autogroupFile)
	return err == nil && len(text) > 0
}

// sessionHas looks for a text in what the kernel says of the session.
func sessionHas(want string) error {
	text, err := os.ReadFile(autogroupFile)
	if err == nil && !strings.Contains(string(text), want) {
		err = fmt.Errorf("the session has %q, want %q", text, want)
	}
	return err
}

// dropRights takes away what root may do beyond others and lowers the limits.
func dropRights() error {
	for which, n := range map[int]uint64{unix.RLIMIT_RTPRIO: 0, unix.RLIMIT_NICE: 0, unix.RLIMIT_MEMLOCK: 1 << 20} {
		if err := unix.Setrlimit(which, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	runtime.LockOSThread() // capabilities belong to a thread
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&head, &none[0])
}

func TestProcess(t *testing.T) {
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), asked+"="+name)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "well") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// The worst pause is that of this process: it is there after a collection and never shrinks.
func TestWorstPauseCounts(t *testing.T) {
	runtime.GC()
	first, n := WorstPause()
	runtime.GC()
	second, more := WorstPause()
	if first <= 0 || second < first || more <= n {
		t.Errorf("%v after %d stops, then %v after %d", first, n, second, more)
	}
}
