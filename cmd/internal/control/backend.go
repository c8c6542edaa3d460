package control

import (
	"context"
	"errors"
	"fmt"
)

// Backend is what can be asked of a daemon. Its methods end with their context. A refusal is an *Error with
// CodeRefused.
type Backend interface {
	// Status returns the cluster as this node sees it.
	Status(ctx context.Context) (Status, error)
	// History returns the newest changes of ownership, the newest last.
	History(ctx context.Context, req HistoryRequest) ([]HistoryEntry, error)
	// Trace returns the pieces of the last takeovers, of this node and of those that it can reach.
	Trace(ctx context.Context, req TraceRequest) (TraceResult, error)
	// Switchover moves a group and returns when its new owner serves.
	Switchover(ctx context.Context, req SwitchoverRequest) (SwitchoverResult, error)
	// Pause freezes or thaws the ownership of a group or of all.
	Pause(ctx context.Context, req PauseRequest) error
	promoter
	adviser
}

// HistoryRequest asks for the newest Limit entries, of one group unless Group is empty. A Limit of 0 means all that are
// kept.
type HistoryRequest struct {
	Group string `json:"group,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// SwitchoverRequest asks to move a group to a node.
type SwitchoverRequest struct {
	Group  string `json:"group"`
	To     string `json:"to"`
	Reason string `json:"reason,omitempty"`
	// EndTransactions consents to the end of transactions that are older than policy promote lets them become.
	EndTransactions bool `json:"end_transactions,omitempty"`
	// Forwarded is set on what another node sent here, which must not be sent on: two nodes that each take the other
	// for the leader would play ball with it. It is known from the stream and does not travel.
	Forwarded bool `json:"-"`
}

// SwitchoverResult says what a switchover did.
type SwitchoverResult struct {
	Group string `json:"group"`
	// From is empty if nobody owned the group.
	From  string `json:"from,omitempty"`
	To    string `json:"to"`
	Epoch uint64 `json:"epoch"`
	// TookMS is the time from the request to the new owner's serving, in milliseconds.
	TookMS int64 `json:"took_ms"`
}

// PauseRequest asks to freeze (On) or thaw a group, or all groups if Group is empty.
type PauseRequest struct {
	Group  string `json:"group,omitempty"`
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"`
	// Forwarded is as in SwitchoverRequest.
	Forwarded bool `json:"-"`
}

// Code tells a caller what kind of error it got.
type Code string

// The codes of errors.
const (
	// CodeRefused means that nothing was done, and the text says why.
	CodeRefused Code = "refused"
	// CodeTimeout means that the time was over before the outcome was known.
	CodeTimeout Code = "timeout"
	// CodeRequest means that the request was not understood.
	CodeRequest Code = "bad_request"
	// CodeVersion means that the two ends speak different versions of the protocol.
	CodeVersion Code = "version"
	// CodeBusy means that the daemon serves too many streams already.
	CodeBusy Code = "busy"
	// CodeFailed is everything else.
	CodeFailed Code = "failed"
)

// Error is an error that travels between the ends.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// Refusedf returns an error that says why an operation was not carried out.
func Refusedf(format string, args ...any) error {
	return &Error{CodeRefused, fmt.Sprintf(format, args...)}
}

// asError gives any error of a Backend a code.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return &Error{e.Code, err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{CodeTimeout, "the time was over before the outcome was known; 'remora status' shows the present state"}
	default:
		return &Error{CodeFailed, err.Error()}
	}
}
