package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Names of the authority's files in its directory.
const (
	CACertFile = "ca.pem"
	CAKeyFile  = "ca.key"
)

// Dir is a directory with an authority and the certificates that it issued. Nothing in it is ever overwritten.
type Dir string

// NodeFiles returns the paths of a node's certificate and key.
func (d Dir) NodeFiles(node string) (cert, key string) {
	return filepath.Join(string(d), node+".pem"), filepath.Join(string(d), node+".key")
}

// CAFiles returns the paths of the authority's certificate and key.
func (d Dir) CAFiles() (cert, key string) {
	return filepath.Join(string(d), CACertFile), filepath.Join(string(d), CAKeyFile)
}

// Init makes the directory if need be, and in it the authority of a cluster.
func (d Dir) Init(cluster string, now time.Time) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("make a directory for the certificate authority: %w", err)
	}
	ca, err := NewCA(cluster, now)
	if err != nil {
		return err
	}
	cert, key := d.CAFiles()
	return write(ca, cert, key)
}

// Issue makes a node's certificate with the directory's authority. If cluster is not empty, the authority must be that
// cluster's.
func (d Dir) Issue(node, cluster string, now time.Time) error {
	return d.issue(node, cluster, func(ca Pair) (Pair, error) { return Issue(ca, node, now) })
}

// IssueHook makes the certificate of a hook, otherwise as Issue.
func (d Dir) IssueHook(name, cluster string, now time.Time) error {
	return d.issue(name, cluster, func(ca Pair) (Pair, error) { return IssueHook(ca, name, now) })
}

func (d Dir) issue(name, cluster string, make func(Pair) (Pair, error)) error {
	ca, err := d.authority()
	if err != nil {
		return err
	}
	if cluster != "" {
		parent, err := parseCert(ca.Cert)
		if err != nil {
			return fmt.Errorf("the authority's certificate %w", err)
		}
		if org := parent.Subject.Organization; len(org) != 1 || org[0] != cluster {
			return fmt.Errorf("the authority in %s is of cluster %q and not of %q: name the right directory with --dir", d, org, cluster)
		}
	}
	pair, err := make(ca)
	if err != nil {
		return fmt.Errorf("issue a certificate for %s in %s: %w", name, d, err)
	}
	cert, key := d.NodeFiles(name)
	return write(pair, cert, key)
}

func (d Dir) authority() (Pair, error) {
	certFile, keyFile := d.CAFiles()
	cert, err := os.ReadFile(certFile)
	if err == nil {
		var key []byte
		if key, err = os.ReadFile(keyFile); err == nil {
			return Pair{cert, key}, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Pair{}, fmt.Errorf("there is no certificate authority in %s: make one with 'remora pki init', or name its directory with --dir: %w", d, err)
	}
	return Pair{}, fmt.Errorf("read the certificate authority: %w", err)
}

// write stores a pair in two new files that only their owner can read. If the second can not be made, the first is
// taken back, so that a second try does not stumble over it.
func write(p Pair, certFile, keyFile string) error {
	for _, file := range []string{certFile, keyFile} {
		if _, err := os.Lstat(file); err == nil {
			return fmt.Errorf("%s exists, and nothing is overwritten: move it away first if you mean to replace it: %w", file, fs.ErrExist)
		}
	}
	if err := writeNew(keyFile, p.Key); err != nil {
		return err
	}
	if err := writeNew(certFile, p.Cert); err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	return nil
}

func writeNew(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write a certificate or key: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(file)))
	}
	return nil
}

// Info describes one certificate for people.
type Info struct {
	File     string    `json:"file"`
	Name     string    `json:"name"`
	Cluster  string    `json:"cluster"`
	CA       bool      `json:"ca"`
	NotAfter time.Time `json:"not_after"`
}

// List describes the certificates of the directory, in the order of their file names.
func (d Dir) List() ([]Info, error) {
	files, err := filepath.Glob(filepath.Join(string(d), "*.pem"))
	if err != nil {
		return nil, fmt.Errorf("list the certificates in %s: %w", d, err)
	}
	var infos []Info
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read a certificate: %w", err)
		}
		cert, err := parseCert(data)
		if err != nil {
			return nil, fmt.Errorf("%s %w", file, err)
		}
		info := Info{File: file, Name: cert.Subject.CommonName, CA: cert.IsCA, NotAfter: cert.NotAfter}
		if len(cert.Subject.Organization) > 0 {
			info.Cluster = cert.Subject.Organization[0]
		}
		infos = append(infos, info)
	}
	return infos, nil
}
