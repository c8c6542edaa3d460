package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// errGreetingShort means that more bytes are needed.
	errGreetingShort = errors.New("the greeting is not complete")
	errNoGreeting    = errors.New("not the greeting of a MySQL server")
)

// ServerError is an error packet that came instead of a greeting.
type ServerError struct{ Code uint16 }

func (e *ServerError) Error() string { return fmt.Sprintf("the server refused with error %d", e.Code) }

// greetingVersion returns the version string of a server's first packet: protocol 10, "HandshakeV10" in the MySQL
// client/server protocol.
func greetingVersion(b []byte) (string, error) {
	const (
		headerLen  = 4
		protocol10 = 0x0a
		errPacket  = 0xff
		maxVersion = 64
	)
	if len(b) < headerLen+1 {
		return "", errGreetingShort
	}
	body := b[headerLen:]
	switch body[0] {
	case errPacket:
		if len(body) < 3 {
			return "", errGreetingShort
		}
		return "", &ServerError{Code: binary.LittleEndian.Uint16(body[1:])}
	case protocol10:
	default:
		return "", errNoGreeting
	}
	end := bytes.IndexByte(body, 0)
	if end < 0 && len(body) <= maxVersion {
		return "", errGreetingShort
	}
	if end < 0 || end > maxVersion {
		return "", errNoGreeting
	}
	return string(body[1:end]), nil
}
