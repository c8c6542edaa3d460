package control

import "context"

// DBServer names a MySQL server as a failover manager does: by name, by address, or both.
type DBServer struct {
	Host string `json:"host,omitempty"`
	IP   string `json:"ip,omitempty"`
}

// AdviceRequest is a call of one of MHA's hooks.
type AdviceRequest struct {
	// Command is status, stop or start; a stop with ssh and one without mean the same here.
	Command string `json:"command"`
	// Online tells a planned change from a failover.
	Online bool     `json:"online,omitempty"`
	Old    DBServer `json:"old"`
	New    DBServer `json:"new"`
	// Group may be empty if there is one writer group.
	Group string `json:"group,omitempty"`
	// By says for people who calls.
	By string `json:"by,omitempty"`
	// DryRun asks what would be done.
	DryRun bool `json:"dry_run,omitempty"`
	// Forwarded is as in SwitchoverRequest.
	Forwarded bool `json:"-"`
}

// AdviceOutcome says what became of advice.
type AdviceOutcome string

// The outcomes.
const (
	// AdviceOK: a status is as the manager believes; a stop is proven; a dry run would be attempted.
	AdviceOK AdviceOutcome = "ok"
	// AdviceSeen and AdviceUnseen are those of a start: served, with or without a peer that has seen it on the link.
	AdviceSeen   AdviceOutcome = "seen"
	AdviceUnseen AdviceOutcome = "unseen"
	// AdviceUnfit is a start that could not be carried out while nobody holds the group.
	AdviceUnfit AdviceOutcome = "unfit"
	// AdviceRefused is advice that does not fit to what the daemons see.
	AdviceRefused AdviceOutcome = "refused"
)

// AdviceResult says what became of advice, and why.
type AdviceResult struct {
	Outcome AdviceOutcome `json:"outcome"`
	Group   string        `json:"group"`
	// Node is the node that the advice was about, Owner the group's owner in Epoch afterwards.
	Node   string `json:"node,omitempty"`
	Owner  string `json:"owner,omitempty"`
	Epoch  uint64 `json:"epoch"`
	Text   string `json:"text,omitempty"`
	TookMS int64  `json:"took_ms"`
}

// SightRequest asks a node what hardware address it sees on the link for a group's first address.
type SightRequest struct {
	Group string `json:"group"`
}

// Sight is what a node sees. MAC is empty if nobody answers. On the owner itself Own is set, and MAC is that of the
// interface on which it serves.
type Sight struct {
	MAC string `json:"mac,omitempty"`
	Own bool   `json:"own,omitempty"`
}

// ServerRequest is about the MySQL server of a node.
type ServerRequest struct {
	Server DBServer `json:"server"`
	// Forwarded is as in SwitchoverRequest: only a request from another node is answered by a question of this one.
	Forwarded bool `json:"-"`
}

// ServerAnswer is what the daemons find out about a server by asking it a query.
type ServerAnswer struct {
	Node string `json:"node"`
	// Answered lists the nodes to which the server answered, Silent those to which it did not, with the reason, and
	// Unreachable those that could not be asked.
	Answered    []string `json:"answered,omitempty"`
	Silent      []string `json:"silent,omitempty"`
	Unreachable []string `json:"unreachable,omitempty"`
	// ReadOnly is yes or no where the server answered, else unknown.
	ReadOnly string `json:"read_only"`
}

// ReportRequest is a line for the history.
type ReportRequest struct {
	Group     string `json:"group,omitempty"`
	Text      string `json:"text"`
	Forwarded bool   `json:"-"`
}

// The operations of failover managers.
const (
	opAdvise = "advise"
	opSight  = "sight"
	opServer = "server"
	opReport = "report"
)

// Advise carries out what a failover manager's hook was called for.
func (c *Client) Advise(ctx context.Context, req AdviceRequest) (AdviceResult, error) {
	return ask[AdviceResult](ctx, c, opAdvise, req)
}

// Sight asks what a node sees on the link.
func (c *Client) Sight(ctx context.Context, req SightRequest) (Sight, error) {
	return ask[Sight](ctx, c, opSight, req)
}

// AskServer asks the daemons whether a node's server answers.
func (c *Client) AskServer(ctx context.Context, req ServerRequest) (ServerAnswer, error) {
	return ask[ServerAnswer](ctx, c, opServer, req)
}

// Report puts a line into the history.
func (c *Client) Report(ctx context.Context, req ReportRequest) error {
	_, err := ask[struct{}](ctx, c, opReport, req)
	return err
}

// adviser is the part of a Backend that failover managers use.
type adviser interface {
	// Advise carries out what a hook was called for. Advice that is refused is a result, not an error.
	Advise(ctx context.Context, req AdviceRequest) (AdviceResult, error)
	// Sight looks at the link.
	Sight(ctx context.Context, req SightRequest) (Sight, error)
	// AskServer asks a node's server a query, from all daemons or, if forwarded, from this one.
	AskServer(ctx context.Context, req ServerRequest) (ServerAnswer, error)
	// Report puts a line into the history.
	Report(ctx context.Context, req ReportRequest) error
}

// carryOutAdvice serves the operations of failover managers.
func (s *Server) carryOutAdvice(ctx context.Context, req request, remote bool) (any, error) {
	switch req.Op {
	case opAdvise:
		args := AdviceRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.Advise(ctx, args)
	case opSight:
		var args SightRequest
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.Sight(ctx, args)
	case opServer:
		args := ServerRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.AskServer(ctx, args)
	case opReport:
		args := ReportRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return struct{}{}, s.backend.Report(ctx, args)
	}
	return nil, unknownOperation(req)
}
