package consensus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
)

// HookUnit is the organizational unit in the certificate of a hook: a program that may open control streams and is no node.
const HookUnit = "remora-hook"

// maxHooks bounds the control streams of hooks.
const maxHooks = 8

// isHook reports whether a certificate is a hook's.
func isHook(c *x509.Certificate) bool { return slices.Contains(c.Subject.OrganizationalUnit, HookUnit) }

// admitsHook reports why a connection with a hook's certificate is refused: it may speak the control protocol and nothing
// else, and belong to this cluster.
func (id *identity) admitsHook(s tls.ConnectionState) error {
	c := s.PeerCertificates[0]
	switch {
	case s.NegotiatedProtocol != alpnControl:
		return fmt.Errorf("%w: %q is a hook and no node: it may speak %s only", ErrIdentity, c.Subject.CommonName, alpnControl)
	case !slices.Contains(c.Subject.Organization, id.cluster):
		return fmt.Errorf("%w: hook %q was issued for cluster %q, this is cluster %q", ErrIdentity, c.Subject.CommonName, c.Subject.Organization, id.cluster)
	}
	return nil
}

// serveHook hands the stream of a hook to the control handler, with no peer's name.
func (n *Node) serveHook(c *tls.Conn) {
	h := n.control.Load()
	if h == nil {
		return
	}
	defer n.hooks.Add(-1)
	if n.hooks.Add(1) > maxHooks {
		n.log.Warn("refused a control stream: hooks have too many", "from", c.RemoteAddr(), "limit", maxHooks)
		return
	}
	(*h)(n.ctx, c, "")
}

// DialHook opens a control stream to whatever node of the cluster answers at endpoint, host:port, with a hook's certificate.
// The caller sets deadlines and closes it.
func DialHook(ctx context.Context, endpoint string, f TLSFiles) (net.Conn, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read the CA certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read the CA certificate: %s holds no certificate in PEM form", f.CA)
	}
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("read the hook's certificate %s and its key: %w", f.Cert, err)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", endpoint, err)
	}
	t := tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{alpnControl},
		// The endpoint may be any node, so its name is not known; what counts is that the cluster's CA vouches for it as a node.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return anyNode(s, pool) },
	})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("greet the node at %s: %w", endpoint, err), c.Close())
	}
	return t, nil
}

// anyNode checks that the other end is a node that the CA vouches for.
func anyNode(s tls.ConnectionState, pool *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return fmt.Errorf("%w: no certificate", ErrIdentity)
	}
	c := s.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, other := range s.PeerCertificates[1:] {
		between.AddCert(other)
	}
	opts := x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if _, err := c.Verify(opts); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if isHook(c) || s.NegotiatedProtocol != alpnControl {
		return fmt.Errorf("%w: %q is no node that speaks %s", ErrIdentity, c.Subject.CommonName, alpnControl)
	}
	return nil
}
