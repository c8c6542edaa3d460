package daemon

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
)

// TestASwitchoverOutlivesALeader: what an operator has asked for is asked of the next leader, too, unless the one before has
// brought it about; what a leader says of it is passed on at once.
func TestASwitchoverOutlivesALeader(t *testing.T) {
	no := func(text string) error { return control.Refusedf("%s", text) }
	gone := fmt.Errorf("%w: it hung up", control.ErrUnreachable)
	changed, busy := no(core.ArbiterChanged), no("group writer is on its way already")
	const never = time.Hour
	for name, c := range map[string]struct {
		answers []error       // the last one is repeated
		served  time.Duration // from when on the group is served where it is to go
		want    error
		after   time.Duration
	}{
		"moved":                          {[]error{nil}, never, nil, 0},
		"refused":                        {[]error{busy, nil}, never, busy, 0},
		"failed":                         {[]error{errors.ErrUnsupported, nil}, never, errors.ErrUnsupported, 0},
		"the next leader moves it":       {[]error{changed, no(core.NotArbiter), gone, nil}, never, nil, 3 * askAgain},
		"the leader's disk stands still": {[]error{no(consensus.ErrDiskStandsStill.Error()), changed, nil}, never, nil, 2 * askAgain},
		"the last leader has moved it":   {[]error{changed, busy}, 2 * askAgain, nil, 2 * askAgain},
		"the next leader goes on":        {[]error{gone, busy, busy, busy, nil}, never, nil, 4 * askAgain},
		"the next leader refuses":        {[]error{changed, busy}, never, busy, askAgain + settledWithin},
		"no leader comes":                {[]error{no(core.NotArbiter)}, never, no(core.NotArbiter), arbiterWithin},
		"leaders change again":           {[]error{changed, busy, changed, busy, nil}, never, nil, 4 * askAgain},
		"the leader is dead, none came":  {[]error{gone}, never, gone, arbiterWithin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, err := insist(t.Context(), func() (control.SwitchoverResult, error) {
					a := c.answers[0]
					if len(c.answers) > 1 {
						c.answers = c.answers[1:]
					}
					return control.SwitchoverResult{}, a
				}, func() (control.SwitchoverResult, bool) {
					return control.SwitchoverResult{}, time.Since(start) >= c.served
				})
				if fmt.Sprint(err) != fmt.Sprint(c.want) || time.Since(start) != c.after {
					t.Errorf("after %v: %v; want %v after %v", time.Since(start), err, c.want, c.after)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*askAgain/2)
		defer cancel()
		start := time.Now()
		_, err := insist(ctx, func() (control.SwitchoverResult, error) { return control.SwitchoverResult{}, changed },
			func() (control.SwitchoverResult, bool) { return control.SwitchoverResult{}, false })
		if err == nil || time.Since(start) != 3*askAgain/2 {
			t.Errorf("when the operator has no more time, after %v: %v", time.Since(start), err)
		}
	})
}
