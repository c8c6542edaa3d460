package daemon

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
)

// says is a lookout that answers after a time, or with an error when it is asked no longer.
func says(after time.Duration, s control.Sight, err error) lookout {
	return lookout{close: func() {}, sight: func(ctx context.Context, _ control.SightRequest) (control.Sight, error) {
		select {
		case <-time.After(after):
			return s, err
		case <-ctx.Done():
			return control.Sight{}, ctx.Err()
		}
	}}
}

// TestAStartIsConfirmedByWhoeverSeesItFirst: it takes as long as the quicker of the peers and the owner, whoever else is
// silent, and never longer than confirmWithin; nothing but the owner's own hardware address, seen by somebody else on the
// link, confirms.
func TestAStartIsConfirmedByWhoeverSeesItFirst(t *testing.T) {
	const ms = time.Millisecond
	mac, other := control.Sight{MAC: "02:00:00:00:00:02"}, control.Sight{MAC: "02:00:00:00:00:01"}
	own := func(s control.Sight) control.Sight { s.Own = true; return s }
	dead, broken := says(time.Hour, mac, nil), says(1*ms, mac, errors.New("no such interface"))
	owner := says(2*ms, own(mac), nil)
	for name, c := range map[string]struct {
		owner  lookout
		others []lookout
		want   bool
		after  time.Duration
	}{
		"all answer":                      {owner, []lookout{says(9*ms, mac, nil), says(4*ms, mac, nil), says(7*ms, mac, nil)}, true, 4 * ms},
		"the first two are cut off":       {owner, []lookout{dead, dead, says(4*ms, mac, nil)}, true, 4 * ms},
		"the owner is the last":           {says(6*ms, own(mac), nil), []lookout{says(1*ms, mac, nil)}, true, 6 * ms},
		"one sees a stranger":             {owner, []lookout{says(1*ms, other, nil), says(4*ms, mac, nil)}, true, 4 * ms},
		"all see a stranger":              {owner, []lookout{says(1*ms, other, nil), says(4*ms, other, nil)}, false, 4 * ms},
		"nobody sees anybody":             {owner, []lookout{says(25*ms, control.Sight{}, nil), broken}, false, 25 * ms},
		"all are cut off":                 {owner, []lookout{dead, dead}, false, confirmWithin},
		"there is nobody else":            {owner, nil, false, 2 * ms},
		"the owner is silent":             {dead, []lookout{says(1*ms, mac, nil)}, false, confirmWithin},
		"the owner no longer serves":      {says(1*ms, mac, nil), []lookout{says(2*ms, mac, nil)}, false, 1 * ms},
		"the owner does not answer":       {broken, []lookout{says(2*ms, mac, nil)}, false, 1 * ms},
		"one believes that it serves too": {owner, []lookout{says(1*ms, own(mac), nil)}, false, 2 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if got := (lookouts{c.owner, c.others}).confirmed(t.Context(), "writer"); got != c.want {
					t.Errorf("confirmed: %v, want %v", got, c.want)
				}
				if took := time.Since(start); took != c.after {
					t.Errorf("it took %v, want %v", took, c.after)
				}
			})
		})
	}
}

// TestLookoutsAreDialledBeforeTheyAreAsked: what a greeting takes is over by the time that the owner serves, one that is cut
// off keeps nobody, and nothing is left open.
func TestLookoutsAreDialledBeforeTheyAreAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const greeting, grant = 15 * time.Millisecond, 20 * time.Millisecond
		here, there := net.Pipe()
		answer := make(chan struct{})
		go func() {
			defer close(answer)
			(control.NewServer(sees{}, nil)).ServeConn(t.Context(), there)
		}()
		peer := dialEarly(t.Context(), func(context.Context) (net.Conn, error) {
			time.Sleep(greeting)
			return here, nil
		})
		gone := dialEarly(t.Context(), func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		time.Sleep(grant)
		start := time.Now()
		s, err := peer.sight(t.Context(), control.SightRequest{Group: "writer"})
		if err != nil || s.MAC != "writer" || time.Since(start) != 0 {
			t.Errorf("after %v: %+v, %v", time.Since(start), s, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), confirmWithin)
		defer cancel()
		if _, err := gone.sight(ctx, control.SightRequest{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that is cut off: %v", err)
		}
		(lookouts{gone, []lookout{peer}}).close()
		<-answer
	})
}

// sees is a daemon that has something to show.
type sees struct{ control.Backend }

func (sees) Sight(_ context.Context, req control.SightRequest) (control.Sight, error) {
	return control.Sight{MAC: req.Group}, nil
}
