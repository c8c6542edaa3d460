package daemon

import (
	"fmt"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/pki"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
)

// certificateFinding says that the certificate of this node or that of its authority ends soon, or has ended, and what to do.
// It is empty as long as there is time.
func certificateFinding(files config.TLS, self core.NodeName, c consensus.Status, now time.Time) string {
	const then = "connection between it and another node comes up anew"
	switch soon := now.Add(pki.EndsSoon); {
	case c.AuthorityEnds.Before(soon):
		return fmt.Sprintf("The certificate of its authority (%s) %s no %s. Make a new authority with 'remora pki init' and issue all nodes again, "+
			"in the order that 'remora pki --help' tells, so that they go on knowing one another.", files.CA, whenItEnds(c.AuthorityEnds, now), then)
	case c.CertificateEnds.Before(soon):
		return fmt.Sprintf("Its certificate (%s) %s no %s. Move the old one away where the authority is, make another with 'remora pki issue %s', "+
			"install it here with its key and reload the daemon.",
			files.Cert, whenItEnds(c.CertificateEnds, now), then, self)
	}
	return ""
}

// whenItEnds says when something ends or has ended, up to the word before what that means.
func whenItEnds(end, now time.Time) string {
	day := end.UTC().Format(time.DateOnly)
	if now.After(end) {
		return fmt.Sprintf("ended on %s:", day)
	}
	switch days := int(end.Sub(now) / (24 * time.Hour)); days {
	case 0:
		return fmt.Sprintf("ends on %s, within a day: then", day)
	case 1:
		return fmt.Sprintf("ends on %s, in 1 day: then", day)
	default:
		return fmt.Sprintf("ends on %s, in %d days: then", day, days)
	}
}

// firstEnd is the earlier one of the ends of a node's certificate and of its authority's.
func firstEnd(c consensus.Status) time.Time {
	if c.AuthorityEnds.Before(c.CertificateEnds) {
		return c.AuthorityEnds
	}
	return c.CertificateEnds
}
