package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/remora-ha/remora/bench/lab"
)

// scrape returns what the daemon of a node offers, and whether it answers there.
func scrape(t *testing.T, n *lab.Node) (string, error) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		doErr := n.NS.Do(func() error { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
		return c, errors.Join(err, doErr)
	}}
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, "http://127.0.0.1:9104/metrics", nil)
	must(t, err)
	r, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// Every daemon offers metrics that Prometheus' own linter has nothing against, and they tell of a switchover.
func TestMetrics(t *testing.T) {
	l := up(t, func(o *lab.Options) { o.ExtraConfig += "\n[metrics]\nlisten = \"127.0.0.1:9104\"\n" })
	from := l.Holder(l.VIP())
	to := others(l, from)[0].Name
	must(t, l.Switchover(within(t), to))
	must(t, l.WaitStable(within(t)))
	shows := func(node string, lines ...string) {
		t.Helper()
		eventually(t, node+" shows it", func() bool {
			text, err := scrape(t, l.Node(node))
			must(t, err)
			for _, line := range lines {
				if !strings.Contains(text, "\n"+line+"\n") {
					t.Logf("%s: no line %q", node, line)
					return false
				}
			}
			problems, err := promlint.New(strings.NewReader(text)).Lint()
			must(t, err)
			for _, p := range problems {
				if strings.HasPrefix(p.Metric, "remora_") {
					t.Errorf("%s: %s", p.Metric, p.Text)
				}
			}
			return true
		})
	}
	shows(to, `remora_group_is_owner{group="writer"} 1`, `remora_takeovers_total{cause="switchover",group="writer"} 1`, `remora_mysql_health{state="healthy"} 1`,
		`remora_takeover_phase_duration_seconds_count{phase="announce"} 1`, `remora_kernel_lease{mode="nftables"} 1`, `remora_quorum 1`,
		`remora_alarm_active{alarm="no_quorum"} 0`, `remora_group_addresses_bound{group="writer"} 1`)
	shows(from, `remora_group_is_owner{group="writer"} 0`, `remora_group_has_owner{group="writer"} 1`, `remora_takeover_phase_duration_seconds_count{phase="unbind"} 1`)

	// Greedy scrapers do not cost the owner its lease.
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		if _, err := scrape(t, l.Node(to)); err != nil {
			t.Fatal(err)
		}
	}
	if now := l.Holder(l.VIP()); now != to {
		t.Errorf("%q holds the address, not %s", now, to)
	}
	neverTwo(t, l)
}

// Without an address nothing listens.
func TestNoMetrics(t *testing.T) {
	l := up(t, nil)
	if text, err := scrape(t, l.Nodes()[0]); err == nil {
		t.Errorf("somebody answers: %s", text)
	}
}
