package consensus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/remora-ha/remora/core"
)

// The application protocols on the one TCP port.
const (
	alpnRaft    = "remora-raft/1"
	alpnControl = "remora-control/1"
	alpnSession = "remora-session/1"
)

// TLSFiles names the PEM files of a node's identity: the cluster's own CA, the node's certificate and its key.
type TLSFiles struct {
	CA   string
	Cert string
	Key  string
}

// Errors about who a peer is.
var (
	// ErrIdentity means that a certificate is not that of the node, or not of the cluster, that it should be.
	ErrIdentity = errors.New("wrong identity")
	// ErrNotMember means that a node is not in the configuration.
	ErrNotMember = errors.New("not a member")
)

// identity is the TLS material of this node. It never changes; a reload makes a new one.
type identity struct {
	cluster string
	pool    *x509.CertPool
	cert    tls.Certificate
	// authorityEnds is when the authority that the certificate is known by ends.
	authorityEnds time.Time
}

// loadIdentity reads the files and checks that they are this node's.
func loadIdentity(f TLSFiles, cluster string, self core.NodeName) (*identity, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read the CA certificate: %w", err)
	}
	id := &identity{cluster: cluster, pool: x509.NewCertPool()}
	if !id.pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the CA certificate: %s holds no certificate in PEM form", f.CA)
	}
	if id.cert, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return nil, fmt.Errorf("read the certificate %s and its key: %w", f.Cert, err)
	}
	if id.cert.Leaf == nil {
		return nil, fmt.Errorf("read the certificate %s: it can not be parsed", f.Cert)
	}
	name, err := id.nameOf(id.cert.Leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", f.Cert, err)
	}
	if name != self {
		return nil, fmt.Errorf("certificate %s: %w: it was issued to node %q, this is %q", f.Cert, ErrIdentity, name, self)
	}
	opts := x509.VerifyOptions{Roots: id.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	chains, err := id.cert.Leaf.Verify(opts)
	if err != nil {
		return nil, fmt.Errorf("certificate %s does not belong to the CA %s: %w", f.Cert, f.CA, err)
	}
	for _, chain := range chains { // from the certificate to an authority of the file
		if end := chain[len(chain)-1].NotAfter; end.After(id.authorityEnds) {
			id.authorityEnds = end
		}
	}
	return id, nil
}

// nameOf returns the node that a certificate was issued to: its common name, which must be among its DNS names as well.
// The certificate must name the cluster as its organization.
func (id *identity) nameOf(c *x509.Certificate) (core.NodeName, error) {
	name := c.Subject.CommonName
	if isHook(c) {
		return "", fmt.Errorf("%w: %q is a hook and no node", ErrIdentity, name)
	}
	if name == "" || !slices.Contains(c.DNSNames, name) {
		return "", fmt.Errorf("%w: the common name %q is not among the DNS names %q", ErrIdentity, name, c.DNSNames)
	}
	if !slices.Contains(c.Subject.Organization, id.cluster) {
		return "", fmt.Errorf("%w: issued for cluster %q, this is cluster %q", ErrIdentity, c.Subject.Organization, id.cluster)
	}
	return core.NodeName(name), nil
}

// peerOf returns the authenticated node at the other end.
func (id *identity) peerOf(s tls.ConnectionState) (core.NodeName, error) {
	if len(s.PeerCertificates) == 0 {
		return "", fmt.Errorf("%w: no certificate", ErrIdentity)
	}
	return id.nameOf(s.PeerCertificates[0])
}

func (id *identity) base() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		SessionTicketsDisabled: true,
	}
}

// server returns the configuration for connections from peers. member says who may connect.
func (id *identity) server(member func(core.NodeName) bool) *tls.Config {
	c := id.base()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = id.pool
	c.NextProtos = []string{alpnRaft, alpnControl, alpnSession}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) > 0 && isHook(s.PeerCertificates[0]) {
			return id.admitsHook(s)
		}
		name, err := id.peerOf(s)
		if err != nil {
			return err
		}
		if !member(name) {
			return fmt.Errorf("%w: node %q is not in the configuration of cluster %q", ErrNotMember, name, id.cluster)
		}
		return nil
	}
	return c
}

// client returns the configuration for a connection to a peer for one protocol.
func (id *identity) client(to core.NodeName, alpn string) *tls.Config {
	c := id.base()
	c.RootCAs = id.pool
	c.ServerName = string(to)
	c.NextProtos = []string{alpn}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		name, err := id.peerOf(s)
		if err != nil {
			return err
		}
		if name != to {
			return fmt.Errorf("%w: node %q answered in place of %q", ErrIdentity, name, to)
		}
		if s.NegotiatedProtocol != alpn {
			return fmt.Errorf("node %q does not speak %s", name, alpn)
		}
		return nil
	}
	return c
}
