package netio

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Capabilities returns the names of the capabilities that netio needs and this process does not have in effect.
func Capabilities() (missing []string, err error) {
	var sets [2]unix.CapUserData // version 3 has two words of 32 capabilities
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return nil, fmt.Errorf("netio: read the process's capabilities: %w", err)
	}
	for _, c := range []struct {
		bit  uint
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}} {
		if sets[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			missing = append(missing, c.name)
		}
	}
	return missing, nil
}

// LocalAddrs lists the addresses of all interfaces of this node, loopback too.
func LocalAddrs() ([]netip.Addr, error) {
	var ips []netip.Addr
	err := withSession(func(s *session) error {
		all, err := s.addresses()
		for _, a := range all {
			ips = append(ips, a.Local)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netio: %w", err)
	}
	return ips, nil
}

// InterfaceExists reports whether this node has an interface of that name.
func InterfaceExists(name string) (bool, error) {
	err := withSession(func(s *session) error {
		_, err := s.link(name)
		return err
	})
	if errors.Is(err, ErrNoInterface) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("netio: %w", err)
	}
	return true, nil
}

// withSession runs f with a netlink socket that is closed afterwards.
func withSession(f func(*session) error) error {
	s, err := newSession()
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.close())
}
