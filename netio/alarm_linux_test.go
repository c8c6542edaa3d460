package netio

import (
	"testing"
	"time"
)

func TestAlarmRingsOnceAndNotEarly(t *testing.T) {
	a, err := NewAlarm()
	must(t, err)
	defer a.Stop()
	for _, d := range []time.Duration{0, -time.Second, time.Microsecond, 3 * time.Millisecond} {
		start := time.Now()
		a.Reset(d)
		select {
		case <-a.C():
		case <-time.After(10 * time.Second):
			t.Fatalf("set to %v, it has not rung after ten seconds", d)
		}
		if took := time.Since(start); took < d {
			t.Errorf("set to %v, it rang after %v", d, took)
		}
		if len(a.C()) != 0 {
			t.Errorf("set to %v, it rang twice", d)
		}
	}
}

func TestAlarmIsSetAnew(t *testing.T) {
	a, err := NewAlarm()
	must(t, err)
	defer a.Stop()
	a.Reset(time.Hour)
	a.Reset(time.Millisecond)
	select {
	case <-a.C():
	case <-time.After(10 * time.Second):
		t.Fatal("the shorter time did not take the place of the longer one")
	}
	a.Reset(time.Millisecond)
	a.Reset(time.Hour)
	select {
	case <-a.C(): // it may have rung before it was set anew, once
	case <-time.After(20 * time.Millisecond):
	}
	select {
	case <-a.C():
		t.Error("the longer time did not take the place of the shorter one")
	case <-time.After(20 * time.Millisecond):
	}
}

// A daemon's loop sets its alarm with each thing that happens.
func TestAlarmNeedsNoMemory(t *testing.T) {
	a, err := NewAlarm()
	must(t, err)
	defer a.Stop()
	if n := testing.AllocsPerRun(200, func() {
		a.Reset(0)
		<-a.C()
	}); n != 0 {
		t.Errorf("%v allocations to set it and to be woken by it", n)
	}
}

func TestStoppedAlarmIsSilent(t *testing.T) {
	a, err := NewAlarm()
	must(t, err)
	a.Reset(5 * time.Millisecond)
	a.Stop()
	rang := len(a.C())
	a.Reset(0)
	a.Stop()
	time.Sleep(20 * time.Millisecond) // the span in which nothing may happen
	if len(a.C()) != rang {
		t.Error("it rang after Stop")
	}
}
