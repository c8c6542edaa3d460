package consensus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/remora-ha/remora/core"
)

// commandV1 is the version byte of the present encoding of a command: the byte itself, then JSON.
const commandV1 = 1

// maxCommand bounds the encoded length of a command in bytes. Raft advises against entries above 512 KiB.
const maxCommand = 256 << 10

// errCommandVersion means that an entry was written by a newer release than this one.
var errCommandVersion = errors.New("unknown version of a log entry")

// encodeCommand returns the log entry of c.
func encodeCommand(c core.Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command %x: %w", c.ID, err)
	}
	if len(body)+1 > maxCommand {
		return nil, fmt.Errorf("encode command %x: %d bytes, more than the %d that a log entry may have", c.ID, len(body)+1, maxCommand)
	}
	return append([]byte{commandV1}, body...), nil
}

// decodeCommand reads a log entry. It is strict: a field that this release does not know could mean something that it
// must not ignore, because every node has to come to the same state.
func decodeCommand(entry []byte) (core.Command, error) {
	var c core.Command
	if len(entry) == 0 {
		return c, errors.New("empty log entry")
	}
	if entry[0] != commandV1 {
		return c, fmt.Errorf("%w: %d, this release knows %d", errCommandVersion, entry[0], commandV1)
	}
	d := json.NewDecoder(bytes.NewReader(entry[1:]))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return core.Command{}, fmt.Errorf("decode log entry: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return core.Command{}, errors.New("decode log entry: bytes after its end")
	}
	return c, nil
}
