package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrLive means that another daemon answers on a socket.
var ErrLive = errors.New("another daemon answers there")

// Listen makes the daemon's unix socket, readable and writable for its owner and group. A socket that a dead daemon has
// left behind is replaced, one on which somebody answers is refused.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the control socket: %w", err)
	}
	if err := free(path); err != nil {
		return nil, err
	}
	// The socket gets its mode under another name, so that it is never reachable with a wider one; the rename puts it
	// in place of a stale one at once.
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make the control socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o660)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", errors.Join(err, l.Close(), os.Remove(temp)))
	}
	return &socket{Listener: l, path: path}, nil
}

// free sees to it that nobody answers at a path and nothing but a socket stands there.
func free(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the control socket: %w", err)
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("make the control socket: %s exists and is no socket: move it away or set socket in the configuration", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("make the control socket %s: %w: stop it first, or set another socket in the configuration", path, ErrLive)
	}
	if isTimeout(err) {
		return fmt.Errorf("make the control socket %s: %w, though slowly: stop it first", path, ErrLive)
	}
	return nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// socket removes its file when it is closed.
type socket struct {
	net.Listener
	path string
	once sync.Once
}

func (s *socket) Close() error {
	err := net.ErrClosed
	s.once.Do(func() { err = errors.Join(os.Remove(s.path), s.Listener.Close()) })
	return err
}
