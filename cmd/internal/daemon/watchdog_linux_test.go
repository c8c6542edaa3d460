package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/watchdog"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/netio"
)

// record is what a fake device and a fake kernel saw, in order.
type record struct {
	seen   []string
	broken error
	binder
}

func (r *record) note(s string) { r.seen = append(r.seen, s) }

func (r *record) Support() (watchdog.Support, error) {
	return watchdog.Support{MagicClose: true, SetTimeout: true}, nil
}
func (r *record) SetTimeout(int) error        { return nil }
func (r *record) Timeout() (int, error)       { return 2, nil }
func (r *record) KeepAlive() error            { r.note("alive"); return nil }
func (r *record) Write(b []byte) (int, error) { r.note(string(b)); return len(b), nil }
func (r *record) Close() error                { r.note("close"); return nil }

// binder is the part of the agent's port that is used here.
type binder interface{ agent.Binder }

func (r *record) Bind(context.Context, core.Bind) error { r.note("bind"); return nil }

func newRecord(required bool, now *time.Time) (*record, *keeper, *[]core.Event) {
	r, told := &record{}, &[]core.Event{}
	dog := watchdog.New(watchdog.Config{Path: "/dev/watchdog", Timeout: 2 * time.Second, Clock: func() time.Time { return *now },
		Open: func(string) (watchdog.Device, error) {
			if r.broken != nil {
				return nil, r.broken
			}
			r.note("open")
			return r, nil
		}})
	k := &keeper{dog: dog, required: required, log: slog.New(slog.DiscardHandler),
		deliver: func(ev core.Event) bool { *told = append(*told, ev); return true }}
	return r, k, told
}

func (r *record) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(r.seen, want) {
		t.Errorf("seen %q, want %q", r.seen, want)
	}
	r.seen = nil
}

// The device runs from before the bind until all is gone; while something slips from the node's hands it gets no sign of life
// and no V.
func TestWatchdogFollowsTheHolding(t *testing.T) {
	now := time.Unix(1, 0)
	r, k, _ := newRecord(true, &now)
	k.follow(core.GripNone)
	r.expect(t)
	if err := (watchedBinder{r, k}).Bind(t.Context(), core.Bind{}); err != nil {
		t.Fatal(err)
	}
	r.expect(t, "open", "alive", "bind")
	now = now.Add(time.Second)
	k.follow(core.GripFirm)
	r.expect(t, "alive")
	now = now.Add(time.Minute)
	k.follow(core.GripSlipping)
	r.expect(t)
	k.follow(core.GripNone)
	r.expect(t, "V", "close")
}

// A node whose watchdog is required and does not work binds nothing and says that it is not fit, until it works; where it is
// used if it works, the node goes on.
func TestWatchdogRequired(t *testing.T) {
	for _, required := range []bool{true, false} {
		now := time.Unix(1, 0)
		r, k, told := newRecord(required, &now)
		r.broken = errors.New("no such device")
		err := watchedBinder{r, k}.Bind(t.Context(), core.Bind{})
		if !required {
			if err != nil || len(*told) > 0 {
				t.Errorf("automatic: %v, told %v", err, *told)
			}
			r.expect(t, "bind")
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "required") {
			t.Errorf("required: %v", err)
		}
		r.expect(t)
		k.check()
		r.broken = nil
		k.check()
		last := (*told)[len(*told)-1].(core.HostChanged)
		if first := (*told)[0].(core.HostChanged); first.Unfit == "" || last.Unfit != "" || len(*told) != 3 {
			t.Errorf("required: told %+v", *told)
		}
		r.expect(t, "open", "V", "close")
	}
}

// Without a fence a profile that is too short ends the start as a problem of the configuration does, with exit status 2; a
// long one goes on.
func TestShortProfileWithoutAFenceIsRefused(t *testing.T) {
	for profile, refused := range map[string]bool{"lan": true, "fast": true, "wan": false} {
		file := strings.Replace(config.Example(), `profile = "lan"`, `profile = "`+profile+`"`, 1)
		cfg, err := config.Parse(strings.NewReader(file), "remora.toml")
		if err != nil {
			t.Fatal(err)
		}
		d := &daemon{cfg: cfg, log: slog.New(slog.DiscardHandler)}
		err = d.goUnfenced(netio.ErrNoFence)
		var problems config.Problems
		if got := errors.As(err, &problems) && errors.Is(err, netio.ErrNoFence); got != refused || (err != nil) != refused || d.unfenced == refused {
			t.Errorf("%s: unfenced %v, error %v", profile, d.unfenced, err)
		}
	}
}
