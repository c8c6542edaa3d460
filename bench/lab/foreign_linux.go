package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// ForeignAddrs returns the addresses on the host's interfaces that the laboratory did not give it.
func (h *Host) ForeignAddrs() ([]netip.Prefix, error) {
	conn, err := h.NS.rtnetlink()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	msgs, err := h.foreign(conn)
	var prefixes []netip.Prefix
	for _, m := range msgs {
		prefixes = append(prefixes, netip.PrefixFrom(messageAddr(m), int(m.PrefixLength)))
	}
	return prefixes, err
}

func (h *Host) foreign(conn *rtnetlink.Conn) ([]rtnetlink.AddressMessage, error) {
	all, err := conn.Address.List()
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", h.Name, err)
	}
	var found []rtnetlink.AddressMessage
	for _, m := range all {
		a := messageAddr(m)
		own := a == h.Addr || a == hostAddr6(h.number)
		if a.IsValid() && !own && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			found = append(found, m)
		}
	}
	return found, nil
}

func messageAddr(m rtnetlink.AddressMessage) netip.Addr {
	if m.Attributes == nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(m.Attributes.Address)
	return a.Unmap()
}

// Forget removes the addresses that the laboratory did not give the host, as a loss of power does.
func (h *Host) Forget() error {
	conn, err := h.NS.rtnetlink()
	if err != nil {
		return err
	}
	defer conn.Close()
	msgs, err := h.foreign(conn)
	errs := []error{err}
	for _, m := range msgs {
		a := messageAddr(m)
		del := &rtnetlink.AddressMessage{Family: m.Family, PrefixLength: m.PrefixLength, Index: m.Index,
			Attributes: &rtnetlink.AddressAttributes{Address: a.AsSlice()}}
		if a.Is4() {
			del.Attributes.Local = a.AsSlice()
		}
		if err := conn.Address.Delete(del); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove %v from %s: %w", a, h.Name, err))
		}
	}
	return errors.Join(errs...)
}
