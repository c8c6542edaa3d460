package control

import "context"

// PromoteRequest asks to make a node the primary of a group of policy promote that nobody owns.
type PromoteRequest struct {
	Group string `json:"group"`
	To    string `json:"to"`
	// AcceptLoss consents to the loss of transactions that the node lacks.
	AcceptLoss bool   `json:"accept_loss,omitempty"`
	Reason     string `json:"reason,omitempty"`
	// Forwarded is as in SwitchoverRequest.
	Forwarded bool `json:"-"`
}

// PlanRequest asks what a switchover would do.
type PlanRequest struct {
	Group string `json:"group"`
	To    string `json:"to"`
	// Forwarded is as in SwitchoverRequest.
	Forwarded bool `json:"-"`
}

// Plan is what a switchover would do. Nothing was changed.
type Plan struct {
	Group string `json:"group"`
	From  string `json:"from"`
	To    string `json:"to"`
	// Checks are the conditions; Steps is empty if it can not be moved at all.
	Checks []PlanCheck `json:"checks"`
	Steps  []string    `json:"steps"`
}

// PlanCheck is a condition of a switchover. Failed says what is wrong, Open what is not known yet; both are empty if it
// holds.
type PlanCheck struct {
	What   string `json:"what"`
	Failed string `json:"failed,omitempty"`
	Open   string `json:"open,omitempty"`
}

// TransactionsRequest asks a node which transactions its server has had for longer than OlderMS.
type TransactionsRequest struct {
	OlderMS int64 `json:"older_ms"`
}

// Transactions lists long transactions, each in a few words.
type Transactions struct {
	Long []string `json:"long,omitempty"`
}

// The operations of policy promote.
const (
	opPromote      = "promote"
	opRejoin       = "rejoin"
	opPlan         = "plan"
	opTransactions = "transactions"
)

// promoter is the part of a Backend that policy promote needs.
type promoter interface {
	// Promote makes a node the primary by an operator's word and returns when it serves.
	Promote(ctx context.Context, req PromoteRequest) (SwitchoverResult, error)
	// Rejoin lets the server of this node, which was set aside, be compared with the owner's again.
	Rejoin(ctx context.Context) error
	// Plan says what a switchover would do.
	Plan(ctx context.Context, req PlanRequest) (Plan, error)
	// Transactions lists the long transactions of this node's server.
	Transactions(ctx context.Context, req TransactionsRequest) (Transactions, error)
}

// Promote asks to make a node the primary.
func (c *Client) Promote(ctx context.Context, req PromoteRequest) (SwitchoverResult, error) {
	return ask[SwitchoverResult](ctx, c, opPromote, req)
}

// Rejoin asks to compare a server that was set aside again.
func (c *Client) Rejoin(ctx context.Context) error {
	_, err := ask[struct{}](ctx, c, opRejoin, nil)
	return err
}

// Plan asks what a switchover would do.
func (c *Client) Plan(ctx context.Context, req PlanRequest) (Plan, error) {
	return ask[Plan](ctx, c, opPlan, req)
}

// Transactions asks for the long transactions of a node's server.
func (c *Client) Transactions(ctx context.Context, req TransactionsRequest) (Transactions, error) {
	return ask[Transactions](ctx, c, opTransactions, req)
}

// carryOutPromotion serves the operations of policy promote.
func (s *Server) carryOutPromotion(ctx context.Context, req request, remote bool) (any, error) {
	switch req.Op {
	case opPromote:
		args := PromoteRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.Promote(ctx, args)
	case opRejoin:
		return struct{}{}, s.backend.Rejoin(ctx)
	case opPlan:
		args := PlanRequest{Forwarded: remote}
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.Plan(ctx, args)
	case opTransactions:
		var args TransactionsRequest
		if err := decodeArgs(req, &args); err != nil {
			return nil, err
		}
		return s.backend.Transactions(ctx, args)
	}
	return s.carryOutAdvice(ctx, req, remote)
}
