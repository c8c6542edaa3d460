package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// protocol is the version of requests and replies. A reader refuses all others.
const protocol = 1

// Bounds on lines, in bytes. A status of seven nodes and 64 groups with 2,048 addresses is well below the second.
const (
	maxRequest = 16 << 10
	maxReply   = 4 << 20
)

// The operations.
const (
	opStatus     = "status"
	opHistory    = "history"
	opTrace      = "trace"
	opSwitchover = "switchover"
	opPause      = "pause"
)

type request struct {
	Version   int             `json:"remora"`
	Op        string          `json:"op"`
	TimeoutMS int64           `json:"timeout_ms,omitempty"`
	Args      json.RawMessage `json:"args,omitempty"`
	// Stages asks for replies with the stages of the operation before the one that ends it.
	Stages bool `json:"stages,omitempty"`
}

// timeout is how long the operation may take. Without one in the request it is a short one.
func (r request) timeout() time.Duration {
	const standard, longest = 10 * time.Second, 10 * time.Minute
	if r.TimeoutMS <= 0 {
		return standard
	}
	return min(time.Duration(min(r.TimeoutMS, longest.Milliseconds()))*time.Millisecond, longest)
}

// reply is an answer: a stage, and there may be more, or a result or an error, which is the last.
type reply struct {
	Version int             `json:"remora"`
	Stage   *Stage          `json:"stage,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}

var errTooLong = errors.New("the line is too long")

// readLine reads one line of at most limit bytes. The end of the stream between lines is io.EOF.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, errTooLong
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// decodeRequest reads a request and the reason why it can not be served.
func decodeRequest(line []byte) (request, *Error) {
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return req, &Error{CodeRequest, fmt.Sprintf("the request is not understood: %v", err)}
	}
	if req.Version != protocol {
		return req, &Error{CodeVersion, fmt.Sprintf(
			"this daemon speaks version %d of the control protocol and was asked in version %d: use the remora binary that the daemon runs",
			protocol, req.Version)}
	}
	return req, nil
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
