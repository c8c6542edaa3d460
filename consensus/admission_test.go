package consensus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

func TestStrangersAreRefused(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	m := c.nodes[0]
	m.open()
	other := newAuthority(t)
	spec := c.specs[0]
	for name, files := range map[string]TLSFiles{
		"another cluster's node":   c.ca.issue(t, "invoices", "db2"),
		"a node that is no member": c.ca.issue(t, testCluster, "db9"),
		"the node's own name":      c.ca.issue(t, testCluster, "db1"),
		"another CA":               other.issue(t, testCluster, "db2"),
	} {
		cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		must(t, err)
		conn, err := tls.Dial("tcp", spec.Address.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnSession},
			Certificates: []tls.Certificate{cert}})
		if err != nil {
			continue
		}
		// With TLS 1.3 the client learns of the refusal when it reads.
		must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
		_ = writeHello(conn, hello{Server: "db2#00000000", Incarnation: 1}, time.Now().Add(time.Second))
		if _, err := readHello(conn, time.Now().Add(5*time.Second)); err == nil {
			t.Errorf("%s was let in", name)
		}
		conn.Close()
	}
	eventually(t, "four refusals are counted", func() bool { return m.Status().Refused >= 4 })
}

func TestAPeerMustBeTheOneThatWasDialed(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a := c.nodes[0]
	a.open()
	if _, err := a.DialControl(context.Background(), "db2"); err == nil {
		t.Error("a connection to a dead address came up")
	}
	// Now somebody with another member's certificate answers at db2's address.
	files := c.ca.issue(t, testCluster, "mgr")
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	must(t, err)
	ln, err := tls.Listen("tcp", c.specs[1].Address.String(), &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpnControl}})
	must(t, err)
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	if _, err := a.DialControl(context.Background(), "db2"); err == nil {
		t.Error("node mgr was taken for db2")
	}
}

func TestForeignFilesAreRefusedAtOnce(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	m := c.nodes[0]
	for name, files := range map[string]TLSFiles{
		"another node":    c.nodes[1].tls,
		"another cluster": c.ca.issue(t, "invoices", "db1"),
		"another CA":      {CA: c.nodes[1].tls.CA, Cert: newAuthority(t).issue(t, testCluster, "db1").Cert},
	} {
		cfg := m.config()
		cfg.TLS = files
		if n, err := Open(cfg); err == nil {
			t.Errorf("%s: opened", name)
			must(t, n.Shutdown(context.Background()))
		}
	}
}

func TestStrangersDoNotCrowdOutPeers(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 251, 1)}}
	for range 3 * maxStrangers {
		conn, err := d.Dial("tcp", c.specs[0].Address.String())
		must(t, err)
		defer conn.Close()
	}
	b.open()
	eventually(t, "a session among silent strangers", func() bool { return b.Status().Peers[0].Reachable })
}

func TestControlStreams(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	b.open()
	b.ListenControl(func(_ context.Context, conn net.Conn, peer core.NodeName) {
		fmt.Fprintf(conn, "hello %s\n", peer)
		_, _ = io.Copy(conn, conn)
	})
	conn, err := a.DialControl(context.Background(), "db2")
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, "and back")
	must(t, err)
	want := "hello db1\nand back"
	got := make([]byte, len(want))
	_, err = io.ReadFull(conn, got)
	must(t, err)
	if string(got) != want {
		t.Errorf("read %q, want %q", got, want)
	}
	must(t, conn.Close())
	if _, err := a.DialControl(context.Background(), "db9"); !errors.Is(err, ErrNotMember) {
		t.Errorf("dial of a stranger: %v, want %v", err, ErrNotMember)
	}
}

// TestAnotherServerIsNotServed: a node answers Raft calls for its own server ID only.
func TestAnotherServerIsNotServed(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	c.startAll()
	c.commit()
	a, b := c.nodes[0], c.nodes[1]
	if conn, err := a.stream.Dial("db2#00000000", time.Second); !errors.Is(err, errAnother) {
		t.Errorf("dial of a former server: %v, %v; want %v", conn, err, errAnother)
	}
	b.shutdown()
	b.open()
	if _, err := a.stream.Dial(raft.ServerAddress(b.id), time.Second); !errors.Is(err, errStarting) {
		t.Errorf("dial of a starting server: %v, want %v", err, errStarting)
	}
}
