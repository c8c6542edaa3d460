package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/remora-ha/remora/consensus"
)

// How long certificates are valid.
const (
	CAValidity   = 10 * 365 * 24 * time.Hour
	NodeValidity = 2 * 365 * 24 * time.Hour
)

// EndsSoon is how long before the end of a certificate people are told of it.
const EndsSoon = 30 * 24 * time.Hour

// backdate allows for clocks that are behind ours.
const backdate = time.Hour

// Pair is a certificate with its private key, both PEM.
type Pair struct{ Cert, Key []byte }

// NewCA makes the authority of a cluster.
func NewCA(cluster string, now time.Time) (Pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Remora CA of " + cluster, Organization: []string{cluster}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(CAValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return sign(template, nil, nil)
}

// Issue makes the certificate of a node, signed by an authority and for the authority's cluster.
func Issue(ca Pair, node string, now time.Time) (Pair, error) {
	return issueAs(ca, now, x509.Certificate{Subject: pkix.Name{CommonName: node}, DNSNames: []string{node},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
}

// IssueHook makes the certificate of a hook: a program that asks nodes and is none. Nodes tell it by the unit.
func IssueHook(ca Pair, name string, now time.Time) (Pair, error) {
	return issueAs(ca, now, x509.Certificate{Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{consensus.HookUnit}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// issueAs completes a template and signs it.
func issueAs(ca Pair, now time.Time, t x509.Certificate) (Pair, error) {
	parent, err := parseCert(ca.Cert)
	if err != nil {
		return Pair{}, fmt.Errorf("the authority's certificate %w", err)
	}
	key, err := parseKey(ca.Key)
	if err != nil {
		return Pair{}, fmt.Errorf("the authority's key %w", err)
	}
	if !key.PublicKey.Equal(parent.PublicKey) {
		return Pair{}, fmt.Errorf("the authority's key does not belong to its certificate: use the two files of one 'remora pki init'")
	}
	if now.After(parent.NotAfter) {
		return Pair{}, fmt.Errorf("the authority ended on %s: make a new one with 'remora pki init' and issue all nodes again",
			parent.NotAfter.UTC().Format(time.DateOnly))
	}
	ends := now.Add(NodeValidity)
	if ends.After(parent.NotAfter) {
		ends = parent.NotAfter
	}
	t.Subject.Organization = parent.Subject.Organization
	t.NotBefore, t.NotAfter = now.Add(-backdate), ends
	t.KeyUsage, t.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	return sign(&t, parent, key)
}

// sign makes a key and a certificate for it; without a parent the certificate signs itself.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	// RFC 5280 section 4.1.2.2: positive and at most 20 octets.
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, fmt.Errorf("make a serial number: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %q: %w", template.Subject.CommonName, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode the key of %q: %w", template.Subject.CommonName, err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}

// parseCert returns the first certificate of a PEM file. Its errors continue a sentence that names the file.
func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("holds no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("holds a damaged certificate: %w", err)
	}
	return cert, nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("holds no PEM private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("is damaged: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("is no ECDSA key")
	}
	return ec, nil
}
