package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func issue(t *testing.T, ca Pair, node string, at time.Time) Pair {
	t.Helper()
	p, err := Issue(ca, node, at)
	if err != nil {
		t.Fatalf("issue %s: %v", node, err)
	}
	return p
}

func newCA(t *testing.T, cluster string) Pair {
	t.Helper()
	ca, err := NewCA(cluster, now)
	if err != nil {
		t.Fatalf("make an authority: %v", err)
	}
	return ca
}

func TestTwoNodesKnowOneAnother(t *testing.T) {
	ca := newCA(t, "orders")
	server, client := issue(t, ca, "db1", now), issue(t, ca, "db2", now)
	if err := handshake(t, ca, server, ca, client, "db1"); err != nil {
		t.Errorf("two nodes of one cluster: %v", err)
	}
	if err := handshake(t, ca, server, ca, client, "db3"); err == nil {
		t.Error("a client that looks for db3 accepted db1")
	}
	other := newCA(t, "orders")
	if err := handshake(t, ca, server, other, issue(t, other, "db2", now), "db1"); err == nil {
		t.Error("nodes of different authorities with the same cluster name accepted one another")
	}
}

// handshake connects a client to a server, each trusting its own authority, and sends a byte each way.
func handshake(t *testing.T, serverCA, server, clientCA, client Pair, name string) error {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	config := func(ca, own Pair) *tls.Config {
		pair, err := tls.X509KeyPair(own.Cert, own.Key)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca.Cert) {
			t.Fatal("the authority's certificate is no PEM")
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, MinVersion: tls.VersionTLS13,
			ClientAuth: tls.RequireAndVerifyClientCert, ServerName: name, Time: func() time.Time { return now }}
	}
	served := make(chan error, 1)
	go func() {
		s := tls.Server(a, config(serverCA, server))
		_, err := io.CopyN(s, s, 1)
		a.Close()
		served <- err
	}()
	c := tls.Client(b, config(clientCA, client))
	err := c.SetDeadline(time.Now().Add(10 * time.Second))
	if err == nil {
		_, err = c.Write([]byte("x"))
	}
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	b.Close()
	return errors.Join(err, <-served)
}

func TestCertificateOfANode(t *testing.T) {
	cert, err := parseCert(issue(t, newCA(t, "orders"), "db1", now).Cert)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != "db1" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != "orders" ||
		len(cert.DNSNames) != 1 || cert.DNSNames[0] != "db1" || cert.IsCA {
		t.Errorf("subject %v, DNS names %v, CA %v", cert.Subject, cert.DNSNames, cert.IsCA)
	}
	if got := cert.NotAfter.Sub(now); got != NodeValidity {
		t.Errorf("valid for %v, want %v", got, NodeValidity)
	}
	if !cert.NotBefore.Before(now) {
		t.Errorf("valid from %v on: a clock that is behind %v refuses it", cert.NotBefore, now)
	}
}

func TestNodeEndsNoLaterThanItsAuthority(t *testing.T) {
	ca := newCA(t, "orders")
	late := now.Add(CAValidity - time.Hour)
	cert, err := parseCert(issue(t, ca, "db1", late).Cert)
	if err != nil {
		t.Fatal(err)
	}
	if want := now.Add(CAValidity); !cert.NotAfter.Equal(want) {
		t.Errorf("ends %v, the authority %v", cert.NotAfter, want)
	}
	if _, err := Issue(ca, "db1", now.Add(CAValidity+time.Hour)); err == nil {
		t.Error("an authority that is over still issues")
	}
}

func TestCheck(t *testing.T) {
	ca, stranger := newCA(t, "orders"), newCA(t, "orders")
	good, twin := issue(t, ca, "db1", now), issue(t, ca, "db1", now)
	for _, c := range []struct {
		name          string
		ca, cert, key []byte
		node, cluster string
		at            time.Time
		part          Part
		want          string
	}{
		{"good", ca.Cert, good.Cert, good.Key, "db1", "orders", now, 0, ""},
		{"other key", ca.Cert, good.Cert, twin.Key, "db1", "orders", now, Key, "does not belong to the certificate"},
		{"other node", ca.Cert, good.Cert, good.Key, "db2", "orders", now, Cert, "is for db1 and not for node db2"},
		{"other cluster", ca.Cert, good.Cert, good.Key, "db1", "shop", now, Cert, `is of cluster ["orders"] and not of "shop"`},
		{"other authority", stranger.Cert, good.Cert, good.Key, "db1", "orders", now, Cert, "is not good as server under the authority of ca"},
		{"over", ca.Cert, good.Cert, good.Key, "db1", "orders", now.Add(NodeValidity + time.Hour), Cert, "ended on 2028-02-29"},
		{"not yet", ca.Cert, good.Cert, good.Key, "db1", "orders", now.Add(-2 * time.Hour), Cert, "set this machine's clock right"},
		{"no certificate", ca.Cert, good.Key, good.Key, "db1", "orders", now, Cert, "holds no PEM certificate"},
		{"no authority", []byte("x"), good.Cert, good.Key, "db1", "orders", now, CA, "holds no PEM certificate"},
		{"no key", ca.Cert, good.Cert, nil, "db1", "orders", now, Key, "does not belong to the certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			faults, ends := Check(c.ca, c.cert, c.key, c.node, c.cluster, c.at)
			if c.want == "" {
				if len(faults) > 0 || !ends.Equal(now.Add(NodeValidity)) {
					t.Errorf("faults %v, ends %v", faults, ends)
				}
				return
			}
			if len(faults) != 1 || faults[0].Part != c.part || !strings.Contains(faults[0].Text, c.want) {
				t.Errorf("faults %v, want one of part %d with %q", faults, c.part, c.want)
			}
		})
	}
}

func TestDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "pki")
	dir := Dir(path)
	if err := dir.Issue("db1", "", now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("issue without an authority: %v", err)
	}
	if err := dir.Init("orders", now); err != nil {
		t.Fatalf("init: %v", err)
	}
	if err := dir.Issue("db1", "orders", now); err != nil {
		t.Fatalf("issue: %v", err)
	}
	checkModes(t, path)
	if err := dir.Issue("db2", "shop", now); err == nil {
		t.Error("issued for a cluster that the authority is not of")
	}
	before := readAll(t, path)
	if err := dir.Init("orders", now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second init: %v", err)
	}
	if err := dir.Issue("db1", "orders", now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second issue: %v", err)
	}
	for name, data := range readAll(t, path) {
		if before[name] != data {
			t.Errorf("%s was changed by an operation that was refused", name)
		}
	}
	infos, err := dir.List()
	if err != nil || len(infos) != 2 || !infos[0].CA || infos[1].Name != "db1" || infos[1].Cluster != "orders" {
		t.Errorf("list: %+v, %v", infos, err)
	}
}

func TestHalfAPairIsNotLeftBehind(t *testing.T) {
	dir := Dir(t.TempDir())
	if err := dir.Init("orders", now); err != nil {
		t.Fatal(err)
	}
	cert, key := dir.NodeFiles("db1")
	if err := os.WriteFile(cert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dir.Issue("db1", "", now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("issue over a certificate: %v", err)
	}
	if _, err := os.Stat(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was left behind: %v", err)
	}
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	for name := range readAll(t, dir) {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", name, fi.Mode().Perm())
		}
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v", fi.Mode(), err)
	}
}

func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}
