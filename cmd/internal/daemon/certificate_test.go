package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/consensus"
)

// A certificate that ends within 30 days is told of, and one that has ended; where the authority ends, another certificate
// would not help.
func TestCertificateFinding(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	files := config.TLS{CA: "/etc/remora/ca.pem", Cert: "/etc/remora/node.pem"}
	const issue, authority = "'remora pki issue db1'", "issue all nodes again"
	for name, c := range map[string]struct {
		cert, authority time.Duration
		want            []string // none for nothing
	}{
		"in time":                  {31 * day, 3650 * day, nil},
		"soon":                     {30*day - time.Second, 3650 * day, []string{"(/etc/remora/node.pem) ends on 2026-03-31, in 29 days: then no connection ", issue}},
		"tomorrow":                 {day + time.Hour, 3650 * day, []string{"ends on 2026-03-02, in 1 day: then no ", issue}},
		"today":                    {time.Hour, 3650 * day, []string{"ends on 2026-03-01, within a day: then no ", issue}},
		"over":                     {-3 * day, 3650 * day, []string{"(/etc/remora/node.pem) ended on 2026-02-26: no connection ", issue}},
		"with the authority":       {10 * day, 10 * day, []string{"(/etc/remora/ca.pem) ends on 2026-03-11, in 10 days: then no ", authority}},
		"the authority before it":  {700 * day, 10 * day, []string{"(/etc/remora/ca.pem) ends on 2026-03-11", authority}},
		"the authority and not it": {700 * day, -day, []string{"(/etc/remora/ca.pem) ended on 2026-02-28: no connection ", authority}},
	} {
		t.Run(name, func(t *testing.T) {
			s := consensus.Status{CertificateEnds: now.Add(c.cert), AuthorityEnds: now.Add(c.authority)}
			got := certificateFinding(files, "db1", s, now)
			if (got == "") != (c.want == nil) {
				t.Errorf("%q", got)
			}
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			if first := firstEnd(s); first != now.Add(min(c.cert, c.authority)) {
				t.Errorf("the first end is %v", first)
			}
		})
	}
}
