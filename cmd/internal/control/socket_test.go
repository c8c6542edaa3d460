package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestNoDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.sock")
	_, err := Local(path).Status(t.Context())
	want := "the daemon can not be reached: nobody answers on socket " + path +
		" (connect: no such file or directory): is it running ('systemctl status remora')? Another socket is named with --socket or REMORA_SOCKET"
	if !errors.Is(err, ErrUnreachable) || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestServeEndsWithOpenStreams(t *testing.T) {
	socket := start(t, new(fake)) // its cleanup waits for Serve
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

func TestSocketMode(t *testing.T) {
	socket := start(t, new(fake))
	fi, err := os.Lstat(socket)
	if err != nil || fi.Mode().Perm() != 0o660 || fi.Mode().Type() != fs.ModeSocket {
		t.Errorf("socket %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Dir(socket)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("directory %v, %v", fi.Mode(), err)
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	socket := start(t, new(fake))
	if _, err := Listen(socket); !errors.Is(err, ErrLive) {
		t.Errorf("a second daemon on the same socket: %v", err)
	}
	if _, err := Local(socket).Status(t.Context()); err != nil {
		t.Errorf("the first daemon after that: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatalf("over the socket of a dead daemon: %v", err)
	}
	l.Close()
}

func TestFileInTheWayIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file was taken for a socket")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "mine" {
		t.Errorf("the file is %q, %v", data, err)
	}
}
