package netio

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asleepNow is Asleep, for a test that waits until it could be read.
func asleepNow(t *testing.T) (d time.Duration) {
	t.Helper()
	poll(t, "the clocks are read together", func() (ok bool) {
		d, ok = Asleep()
		return ok
	})
	return d
}

// While the machine is awake its readings agree by less than what the agent takes for a suspend (1 ms).
func TestAsleepStandsStillWhileTheMachineIsAwake(t *testing.T) {
	least := asleepNow(t)
	most := least
	for range 10000 {
		d := asleepNow(t)
		least, most = min(least, d), max(most, d)
	}
	if most-least > 2*asleepExact {
		t.Errorf("the readings differ by %v, want %v at the most", most-least, 2*asleepExact)
	}
}

// asleepPrinter is set for a test process that prints how long its machine has slept.
const asleepPrinter = "REMORA_NETIO_TEST_ASLEEP"

// A machine that has slept is imitated by a time namespace whose CLOCK_BOOTTIME is ahead.
func TestAsleepTellsOfASuspend(t *testing.T) {
	if os.Getenv(asleepPrinter) != "" {
		fmt.Printf("asleep for %d ns\n", asleepNow(t))
		return
	}
	const suspended = 14 * time.Second
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("unshare", "--time", "--fork", "--boottime", strconv.Itoa(int(suspended/time.Second)),
		self, "-test.run=^TestAsleepTellsOfASuspend$")
	cmd.Env = append(os.Environ(), asleepPrinter+"=1")
	before := asleepNow(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	_, text, _ := strings.Cut(string(out), "asleep for ")
	var told time.Duration
	if _, err := fmt.Sscanf(text, "%d ns", &told); err != nil {
		t.Fatalf("no time in %q: %v", out, err)
	}
	if off := (told - before - suspended).Abs(); off > 2*asleepExact {
		t.Errorf("after a suspend of %v the machine has slept %v more, want it to %v", suspended, told-before, 2*asleepExact)
	}
}
