package lab

import (
	"os"
	"testing"
	"time"
)

func TestRegularsTellTheLongestGapAndTheLongestWait(t *testing.T) {
	zero := time.Unix(1000, 0)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	r := &Regulars{open: []time.Time{{}, at(450)}, answers: [][]exchange{
		{{at(-900), at(-100)}, {at(90), at(100)}, {at(110), at(300)}, {at(310), at(320)}},
		{{at(10), at(20)}, {at(440), at(445)}},
	}}
	if got, want := r.Gap(zero, at(400)), 200*time.Millisecond; got != want {
		t.Errorf("the longest gap is %v, want %v", got, want)
	}
	if got, want := r.Wait(zero, at(400)), 190*time.Millisecond; got != want {
		t.Errorf("the longest wait is %v, want %v", got, want)
	}
	if got, want := r.Wait(zero, at(700)), 250*time.Millisecond; got != want {
		t.Errorf("with a question that is open the longest wait is %v, want %v", got, want)
	}
}

func TestMemoryIsReadFromTheKernel(t *testing.T) {
	has, err := residentMiB(os.Getpid())
	if err != nil || has < 1 {
		t.Errorf("this process has %d MiB: %v", has, err)
	}
	free, err := AvailableMiB()
	if err != nil || free < 1 {
		t.Errorf("%d MiB are free: %v", free, err)
	}
	if _, err := memoryMiB("/proc/meminfo", "NoSuchLine:"); err == nil {
		t.Error("a line that is not there was read")
	}
}
