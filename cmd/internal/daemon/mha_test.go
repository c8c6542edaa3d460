package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/mha"
	"github.com/remora-ha/remora/core"
)

// TestAdviceWaitsForAnArbiter: a change of leaders under a hook is no refusal, which would make MHA abort. What an arbiter
// says is passed on at once, and where none comes the caller learns of it in time.
func TestAdviceWaitsForAnArbiter(t *testing.T) {
	type answer struct {
		r   control.AdviceResult
		err error
	}
	no := func(text string) answer {
		return answer{r: control.AdviceResult{Outcome: control.AdviceRefused, Text: text}}
	}
	gone := answer{err: fmt.Errorf("%w: it hung up", control.ErrUnreachable)}
	proven := answer{r: control.AdviceResult{Outcome: control.AdviceOK}}
	for name, c := range map[string]struct {
		answers []answer // the last one is repeated
		want    answer
		after   time.Duration
	}{
		"an arbiter":         {[]answer{proven}, proven, 0},
		"a refusal":          {[]answer{no("db1 serves"), proven}, no("db1 serves"), 0},
		"a failure":          {[]answer{{err: errors.ErrUnsupported}, proven}, answer{err: errors.ErrUnsupported}, 0},
		"a change of office": {[]answer{no(core.ArbiterChanged), no(core.NotArbiter), gone, proven}, proven, 3 * askAgain},
		"no majority":        {[]answer{no(core.NotArbiter)}, no(core.NotArbiter), arbiterWithin},
		"a dead leader":      {[]answer{gone}, gone, arbiterWithin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r, err := askArbiter(t.Context(), func() (control.AdviceResult, error) {
					a := c.answers[0]
					if len(c.answers) > 1 {
						c.answers = c.answers[1:]
					}
					return a.r, a.err
				})
				if r != c.want.r || !errors.Is(err, c.want.err) || time.Since(start) != c.after {
					t.Errorf("after %v: %+v, %v; want %+v after %v", time.Since(start), r, err, c.want, c.after)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*askAgain/2)
		defer cancel()
		start := time.Now()
		if r, err := askArbiter(ctx, func() (control.AdviceResult, error) { return no(core.NotArbiter).r, nil }); err != nil ||
			r.Text != core.NotArbiter || time.Since(start) != 3*askAgain/2 {
			t.Errorf("when the caller has no more time, after %v: %+v, %v", time.Since(start), r, err)
		}
	})
}

// TestServersAreAskedWherePeersReachThem: by MHA's word too a server is where its peers reach it, whatever way its own daemon has to it.
func TestServersAreAskedWherePeersReachThem(t *testing.T) {
	for name, c := range map[string]struct {
		own, peers string // mysql_address, or that of the whole file, and mysql
		want       string
		called     string // an address by which MHA may call the node
	}{
		"a socket":                       {"/run/mysqld/mysqld.sock", "", "10.77.0.12:3306", "10.77.0.12"},
		"a socket, a port for the peers": {"/run/mysqld/mysqld.sock", "10.77.0.12:3307", "10.77.0.12:3307", "10.77.0.12"},
		"a network of the servers' own":  {"127.0.0.1:3306", "10.88.0.12:3307", "10.88.0.12:3307", "10.88.0.12"},
		"loopback":                       {"127.0.0.1:3308", "", "10.77.0.12:3308", "10.77.0.12"},
		"an address":                     {"10.88.0.12:3306", "", "10.88.0.12:3306", "10.88.0.12"},
		"an address, another for peers":  {"10.88.0.12:3306", "10.99.0.12:3306", "10.99.0.12:3306", "10.99.0.12"},
	} {
		t.Run(name, func(t *testing.T) {
			n := config.Node{NodeSpec: core.NodeSpec{Name: "db2", Address: netip.MustParseAddrPort("10.77.0.12:7400")},
				MySQL: config.MySQL{Address: c.own}}
			if c.peers != "" {
				n.NodeSpec.MySQL = netip.MustParseAddrPort(c.peers)
			}
			if got := serverOf(n); got != c.want {
				t.Errorf("asked at %s, want %s", got, c.want)
			}
			m, err := mha.Match(MHANodes(&config.Config{Nodes: []config.Node{{NodeSpec: core.NodeSpec{Name: "db1"}}, n}}), mha.Server{IP: c.called})
			if err != nil || m.Name != "db2" {
				t.Errorf("%s is %q (%v), want db2", c.called, m.Name, err)
			}
		})
	}
}
