package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// authority is a certificate authority for one laboratory. Its certificates have the form that "remora pki" gives
// them: the common name is the node's name, the organisation the cluster's.
type authority struct {
	cluster string
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
}

func newAuthority(cluster string) (*authority, error) {
	a := &authority{cluster: cluster}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	tmpl := a.form(cluster + " CA")
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

func (a *authority) form(name string) *x509.Certificate {
	const life = 90 * 24 * time.Hour
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		serial = big.NewInt(time.Now().UnixNano())
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{a.cluster}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life)}
}

// issue writes ca.pem, node.pem and node.key for a node into dir.
func (a *authority) issue(node, dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of %s: %w", node, err)
	}
	tmpl := a.form(node)
	tmpl.DNSNames = []string{node}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	cert, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("make the certificate of %s: %w", node, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of %s: %w", node, err)
	}
	files := []struct {
		name, kind string
		der        []byte
		mode       os.FileMode
	}{
		{"ca.pem", "CERTIFICATE", a.cert.Raw, 0o644},
		{"node.pem", "CERTIFICATE", cert, 0o644},
		{"node.key", "PRIVATE KEY", private, 0o600},
	}
	for _, f := range files {
		text := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := os.WriteFile(filepath.Join(dir, f.name), text, f.mode); err != nil {
			return fmt.Errorf("write the certificates of %s: %w", node, err)
		}
	}
	return nil
}
