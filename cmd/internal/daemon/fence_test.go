package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// aFence is a fence whose watch ends by itself some times, and then tells of a loss.
type aFence struct {
	ends    int
	begun   []time.Duration // when a watch began, since start
	start   time.Time
	checked int
}

var errBroken = errors.New("the socket is broken")

func (f *aFence) Watch(ctx context.Context, lost func(error)) error {
	f.begun = append(f.begun, time.Since(f.start))
	if len(f.begun) <= f.ends {
		return errBroken
	}
	lost(errors.New("flushed"))
	<-ctx.Done()
	return nil
}

func (f *aFence) Check() error {
	f.checked++
	return nil
}

// A watch that ends by itself begins again, and neither that nor a rest keeps the daemon from its end.
func TestFenceIsWatchedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		ends  int
		until time.Duration
		begun []time.Duration
	}{
		"watched":       {0, time.Minute, []time.Duration{0}},
		"watched again": {2, time.Minute, []time.Duration{0, watchAgain, 2 * watchAgain}},
		"at rest":       {1 << 30, watchAgain + watchAgain/2, []time.Duration{0, watchAgain}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				d := &daemon{log: slog.New(slog.NewTextHandler(&log, nil))}
				f := &aFence{ends: c.ends, start: time.Now()}
				ctx, cancel := context.WithTimeout(t.Context(), c.until)
				defer cancel()
				losses := 0
				d.watchOver(ctx, f, func(error) { losses++ })
				if took := time.Since(f.start); took != c.until {
					t.Errorf("it ended %v after its end was asked for", took-c.until)
				}
				if !slices.Equal(f.begun, c.begun) {
					t.Errorf("watched from %v, want %v", f.begun, c.begun)
				}
				if told := strings.Count(log.String(), errBroken.Error()); told != min(c.ends, len(c.begun)) {
					t.Errorf("the log tells %d times why nobody watches:\n%s", told, log.String())
				}
				if want := len(c.begun) > c.ends; (losses == 1) != want {
					t.Errorf("%d losses were told", losses)
				}
				if want := int(c.until / fenceCheck); f.checked < want-1 || f.checked > want {
					t.Errorf("the fence was checked %d times in %v", f.checked, c.until)
				}
			})
		})
	}
}
