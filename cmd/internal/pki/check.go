package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Part is one of the three files that a node needs.
type Part uint8

// The parts.
const (
	CA Part = iota + 1
	Cert
	Key
)

// Fault is something wrong with one of the files. Text continues a sentence that names the file.
type Fault struct {
	Part Part
	Text string
}

// Check returns what keeps a node from using three PEM files, and when its certificate ends.
func Check(ca, cert, key []byte, node, cluster string, now time.Time) ([]Fault, time.Time) {
	var faults []Fault
	bad := func(part Part, format string, args ...any) {
		faults = append(faults, Fault{part, fmt.Sprintf(format, args...)})
	}
	pool := x509.NewCertPool()
	authority, err := parseCert(ca)
	if err != nil {
		bad(CA, "%v: copy ca.pem of 'remora pki init' there", err)
	}
	poolOK := pool.AppendCertsFromPEM(ca)
	leaf, err := parseCert(cert)
	if err != nil {
		bad(Cert, "%v: make one with 'remora pki issue %s'", err, node)
		return faults, time.Time{}
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		bad(Key, "does not belong to the certificate (%s): take both files from the same 'remora pki issue %s'", trimTLS(err), node)
	}
	faults = append(faults, leafFaults(leaf, node, cluster, now)...)
	if authority == nil || !poolOK || now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return faults, leaf.NotAfter
	}
	if now.After(authority.NotAfter) {
		bad(CA, "ended on %s: make a new authority with 'remora pki init' and issue all nodes again", authority.NotAfter.UTC().Format(time.DateOnly))
		return faults, leaf.NotAfter
	}
	for _, use := range []struct {
		usage x509.ExtKeyUsage
		name  string
	}{{x509.ExtKeyUsageServerAuth, "server"}, {x509.ExtKeyUsageClientAuth, "client"}} {
		opts := x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use.usage}, Intermediates: intermediates(cert)}
		if _, err := leaf.Verify(opts); err != nil {
			bad(Cert, "is not good as %s under the authority of ca (%s): issue it with 'remora pki issue %s' from the directory of that authority",
				use.name, strings.TrimPrefix(err.Error(), "x509: "), node)
			break
		}
	}
	return faults, leaf.NotAfter
}

// leafFaults looks at what a node's certificate says of itself.
func leafFaults(leaf *x509.Certificate, node, cluster string, now time.Time) []Fault {
	var faults []Fault
	bad := func(format string, args ...any) {
		faults = append(faults, Fault{Cert, fmt.Sprintf(format, args...)})
	}
	switch {
	case now.After(leaf.NotAfter):
		bad("ended on %s: make a new one with 'remora pki issue %s'", leaf.NotAfter.UTC().Format(time.DateOnly), node)
	case now.Before(leaf.NotBefore):
		bad("is valid from %s only: set this machine's clock right, it says %s", leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if !slices.Contains(leaf.Subject.Organization, cluster) {
		bad("is of cluster %q and not of %q: make one with 'remora pki issue %s' from that cluster's authority", leaf.Subject.Organization, cluster, node)
	}
	if leaf.Subject.CommonName != node || !slices.Contains(leaf.DNSNames, node) {
		bad("is for %s and not for node %s: give each node its own, made with 'remora pki issue %s'", names(leaf), node, node)
	}
	return faults
}

// names shows the name that a certificate carries in its two places, which must be the same.
func names(leaf *x509.Certificate) string {
	if slices.Equal(leaf.DNSNames, []string{leaf.Subject.CommonName}) {
		return leaf.Subject.CommonName
	}
	return fmt.Sprintf("common name %q, DNS names %q,", leaf.Subject.CommonName, leaf.DNSNames)
}

// intermediates returns the certificates of a file after the first.
func intermediates(cert []byte) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

func trimTLS(err error) string { return strings.TrimPrefix(err.Error(), "tls: ") }
