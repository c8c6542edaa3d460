package config

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ThisHost returns the machine that the process runs on, in its own network namespace.
func ThisHost() Host { return thisHost{} }

type thisHost struct{}

func (thisHost) Interfaces() ([]string, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var names []string
	for _, i := range ifs {
		names = append(names, i.Name)
	}
	return names, nil
}

func (thisHost) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

func (thisHost) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

func (thisHost) User() uint32 { return uint32(os.Geteuid()) }

// ownerOf returns to whom a file belongs, where its system tells.
func ownerOf(fi fs.FileInfo) (user, group uint32, known bool) {
	st, known := fi.Sys().(*syscall.Stat_t)
	if !known {
		return 0, 0, false
	}
	return st.Uid, st.Gid, true
}

func (thisHost) Writable(dir string) error {
	// AT_EACCESS: the effective user and capabilities decide, as they will when the daemon writes.
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "access", Path: dir, Err: err}
	}
	return nil
}

func (thisHost) Capabilities() (uint64, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return 0, fmt.Errorf("capget: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

func (thisHost) Listeners(port uint16) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		data, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // no IPv6 in this kernel
		}
		if err != nil {
			return nil, fmt.Errorf("read the listening sockets: %w", err)
		}
		for _, a := range listeners(data, port) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

func (thisHost) Now() time.Time { return time.Now() }

// LocalAddrs returns the addresses of all interfaces of this machine, by which a node finds itself in the file.
func LocalAddrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}
