package consensus

import (
	"bytes"
	"os"
	"testing"
	"time"
)

// TestStatusTellsWhenCertificatesEnd: of the files that are in use, which are others after a reload.
func TestStatusTellsWhenCertificatesEnd(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	m := c.nodes[0]
	m.open()
	before := m.Status()
	if !before.AuthorityEnds.Equal(c.ca.cert.NotAfter) || before.CertificateEnds.IsZero() {
		t.Errorf("the certificate ends at %v, its authority at %v, want %v", before.CertificateEnds, before.AuthorityEnds, c.ca.cert.NotAfter)
	}
	end := time.Now().Add(20 * time.Minute).Truncate(time.Second)
	next := c.ca.issueUntil(t, end, testCluster, "db1")
	must(t, os.Rename(next.Cert, m.tls.Cert))
	must(t, os.Rename(next.Key, m.tls.Key))
	if got := m.Status().CertificateEnds; !got.Equal(before.CertificateEnds) {
		t.Errorf("a file that was not read again is in use: %v", got)
	}
	must(t, m.Reload())
	if got := m.Status().CertificateEnds; !got.Equal(end) {
		t.Errorf("after the reload the certificate ends at %v, want %v", got, end)
	}
}

// TestTwoAuthorities: while a cluster changes to another authority, nodes of both know one another if the file of each holds both.
func TestTwoAuthorities(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	b.tls = newAuthority(t).issue(t, testCluster, "db2")
	var both [][]byte
	for _, file := range []string{a.tls.CA, b.tls.CA} {
		pem, err := os.ReadFile(file)
		must(t, err)
		both = append(both, pem)
	}
	for _, m := range []*member{a, b} {
		must(t, os.WriteFile(m.tls.CA, bytes.Join(both, nil), 0o600))
		m.open()
	}
	for _, m := range []*member{a, b} {
		eventually(t, "a session with a node of the other authority", func() bool { return m.Status().Peers[0].Reachable })
	}
}
