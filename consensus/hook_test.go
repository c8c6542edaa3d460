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

	"github.com/remora-ha/remora/core"
)

// TestHooksSpeakControlOnly: a hook's certificate opens a control stream without a peer's name, and nothing else; a node's
// certificate is none of a hook, and one of another cluster opens nothing.
func TestHooksSpeakControlOnly(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	ca, node := c.ca, c.nodes[0]
	node.open()
	node.ListenControl(func(_ context.Context, conn net.Conn, peer core.NodeName) { fmt.Fprintf(conn, "hello %q\n", peer) })
	endpoint := c.specs[0].Address.String()
	read := func(f TLSFiles) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := DialHook(ctx, endpoint, f)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		b, err := io.ReadAll(conn)
		return string(b), err
	}
	hook := ca.issue(t, testCluster, "far", HookUnit)
	if got, err := read(hook); err != nil || got != "hello \"\"\n" {
		t.Errorf("a hook reads %q, %v", got, err)
	}
	if got, err := read(ca.issue(t, "other", "far", HookUnit)); err == nil {
		t.Errorf("a hook of another cluster reads %q", got)
	}
	if got, err := read(newAuthority(t).issue(t, testCluster, "far", HookUnit)); !errors.Is(err, ErrIdentity) {
		t.Errorf("a hook of another authority reads %q, %v", got, err)
	}
	// A hook that has the name of a node is no node.
	id, err := loadIdentity(ca.issue(t, testCluster, "db2"), testCluster, "db2")
	must(t, err)
	if id.cert, err = tls.LoadX509KeyPair(hook.Cert, hook.Key); err != nil {
		t.Fatal(err)
	}
	for _, alpn := range []string{alpnRaft, alpnSession} {
		conn, err := tls.Dial("tcp", endpoint, id.client("db1", alpn))
		if err == nil {
			must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil {
			t.Errorf("a hook speaks %s", alpn)
		}
	}
	if _, err := loadIdentity(ca.issue(t, testCluster, "db2", HookUnit), testCluster, "db2"); !errors.Is(err, ErrIdentity) {
		t.Errorf("a node starts with a hook's certificate: %v", err)
	}
}
