package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/mha"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
	"github.com/remora-ha/remora/detector"
)

const (
	// serverWithin bounds one question to a server, serversWithin the questions of all daemons together. MHA counts on an
	// answer in less than a second.
	serverWithin  = 600 * time.Millisecond
	serversWithin = 800 * time.Millisecond
	// arbiterWithin is how long advice waits for an arbiter, askAgain how often it looks for one. A refusal would make MHA
	// abort, and the next leader is elected in less.
	arbiterWithin = 5 * time.Second
	askAgain      = 20 * time.Millisecond
)

// errAdvice is advice that does not fit to the configuration.
type errAdvice string

func (e errAdvice) Error() string { return string(e) }

// Advise does what MHA's hook was called for, here or through the leader. A status needs nobody else.
func (b backend) Advise(ctx context.Context, req control.AdviceRequest) (control.AdviceResult, error) {
	start := time.Now()
	if req.Command == "status" || req.DryRun || req.Forwarded {
		r, err := b.adviseHere(ctx, req)
		r.TookMS = time.Since(start).Milliseconds()
		return r, err
	}
	r, err := askArbiter(ctx, func() (control.AdviceResult, error) {
		if leader, elsewhere := b.leader(false); elsewhere {
			return leader.Advise(ctx, req)
		}
		return b.adviseHere(ctx, req)
	})
	r.TookMS = time.Since(start).Milliseconds()
	return r, err
}

// askArbiter asks until somebody answers who is the arbiter. Advice may be given twice: what it has led to is found again.
func askArbiter(ctx context.Context, ask func() (control.AdviceResult, error)) (control.AdviceResult, error) {
	for end := time.Now().Add(arbiterWithin); ; {
		r, err := ask()
		elsewhere := errors.Is(err, control.ErrUnreachable) || err == nil && (r.Text == core.NotArbiter || r.Text == core.ArbiterChanged)
		if !elsewhere || !time.Now().Before(end) {
			return r, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return r, err
		}
	}
}

// adviseHere turns a refusal into a result.
func (b backend) adviseHere(ctx context.Context, req control.AdviceRequest) (control.AdviceResult, error) {
	r, err := b.advise(ctx, req)
	var wrong errAdvice
	var no agent.Refusal
	switch {
	case errors.As(err, &wrong):
		r.Outcome, r.Text = control.AdviceRefused, string(wrong)
		return r, nil
	case errors.As(err, &no):
		r.Text = string(no)
		return r, nil
	}
	return r, err
}

func (b backend) advise(ctx context.Context, req control.AdviceRequest) (control.AdviceResult, error) {
	r := control.AdviceResult{Outcome: control.AdviceRefused, Group: req.Group}
	group, err := b.writerGroup(req.Group)
	if err != nil {
		return r, err
	}
	r.Group = string(group)
	server := req.Old
	if req.Command == "start" {
		server = req.New
	}
	var node mha.Node
	if server != (control.DBServer{}) {
		if node, err = match(b.d.config(), server); err != nil {
			return r, err
		}
	}
	r.Node = node.Name
	switch {
	case req.Command == "status":
		err = b.adviceStatus(ctx, &r)
	case req.DryRun:
		r.Outcome, r.Text = control.AdviceOK, "dry run: nothing was done"
	default:
		err = b.carryOut(ctx, req, group, &r)
	}
	state := b.d.node.View().Groups[group]
	r.Owner, r.Epoch = string(state.Owner), uint64(state.Epoch)
	return r, err
}

// carryOut brings a stop or a start before the arbiter.
func (b backend) carryOut(ctx context.Context, req control.AdviceRequest, group core.GroupName, r *control.AdviceResult) error {
	m := b.d.config().MHA
	ev := core.AdviceAsked{Group: group, Stop: req.Command == "stop", Node: core.NodeName(r.Node), Online: req.Online, By: req.By,
		Wait: m.Wait, Waive: m.Waive, Graceful: m.Graceful, Drain: m.Drain, Clear: m.ClearReadOnly}
	var look lookouts
	if !ev.Stop {
		look = b.lookouts(ctx, ev.Node)
		defer look.close()
	}
	if err := b.d.agent.Advise(ctx, ev); err != nil {
		state := b.d.node.View().Groups[group]
		n, _ := b.d.config().Node(ev.Node)
		if !ev.Stop && !n.Witness && (state.Owner == "" || state.Owner == ev.Node) {
			r.Outcome = control.AdviceUnfit
		}
		return err
	}
	r.Outcome = control.AdviceOK
	if !ev.Stop {
		r.Outcome = control.AdviceUnseen
		if look.confirmed(ctx, group) {
			r.Outcome = control.AdviceSeen
		}
	}
	return nil
}

// adviceStatus looks whether things are as MHA believes.
func (b backend) adviceStatus(ctx context.Context, r *control.AdviceResult) error {
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Groups, func(g control.Group) bool { return g.Name == r.Group })
	switch {
	case !s.Quorum:
		return errAdvice("this daemon is not in touch with a majority under a leader")
	case i < 0:
		return errAdvice(fmt.Sprintf("the cluster has no group %q yet", r.Group))
	case s.Groups[i].Policy == string(core.Promote):
		return errAdvice(fmt.Sprintf("group %s has policy promote: use follow under MHA", r.Group))
	case s.Groups[i].Owner == "":
		return errAdvice(fmt.Sprintf("nobody owns %s: 'remora status' says why", r.Group))
	case r.Node != "" && s.Groups[i].Owner != r.Node:
		return errAdvice(fmt.Sprintf("%s owns %s, and MHA takes %s for the primary", s.Groups[i].Owner, r.Group, r.Node))
	}
	r.Outcome = control.AdviceOK
	return nil
}

// writerGroup returns the group that advice is about: the named one, or the only writer group.
func (b backend) writerGroup(name string) (core.GroupName, error) {
	var writers []string
	for _, g := range b.d.config().Groups {
		if g.Role == core.Writer {
			writers = append(writers, string(g.Name))
		}
	}
	switch {
	case name != "" && !slices.Contains(writers, name):
		return "", errAdvice(fmt.Sprintf("there is no writer group %q: the configuration has %s", name, strings.Join(writers, ", ")))
	case name != "":
		return core.GroupName(name), nil
	case len(writers) != 1:
		return "", errAdvice(fmt.Sprintf("there are %d writer groups: name one with --remora-group=NAME behind the script's name in app1.cnf", len(writers)))
	}
	return core.GroupName(writers[0]), nil
}

func match(cfg *config.Config, s control.DBServer) (mha.Node, error) {
	n, err := mha.Match(MHANodes(cfg), mha.Server{Host: s.Host, IP: s.IP})
	if err != nil {
		return n, errAdvice(err.Error())
	}
	return n, nil
}

// MHANodes returns the nodes of a configuration with everything that MHA may call them by.
func MHANodes(c *config.Config) []mha.Node {
	var nodes []mha.Node
	for _, n := range c.Nodes {
		m := mha.Node{Name: string(n.Name), Addresses: []netip.Addr{n.Address.Addr(), n.Server().Addr()}, Aliases: n.Aliases, Witness: n.Witness}
		if at, err := netip.ParseAddrPort(n.MySQL.Address); err == nil && !at.Addr().IsLoopback() {
			m.Addresses = append(m.Addresses, at.Addr())
		}
		nodes = append(nodes, m)
	}
	return nodes
}

// peer returns the backend of a node, this one included.
func (b backend) peer(name core.NodeName) control.Backend {
	if name == b.d.opt.Self.Name {
		return b
	}
	return control.NewClient(func(ctx context.Context) (net.Conn, error) { return b.d.node.DialControl(ctx, name) })
}

// AskServer has a node's server asked a query: by all nodes but its own or, for another node, by this one.
func (b backend) AskServer(ctx context.Context, req control.ServerRequest) (control.ServerAnswer, error) {
	cfg := b.d.config()
	m, err := match(cfg, req.Server)
	if err != nil {
		return control.ServerAnswer{}, control.Refusedf("%s", err)
	}
	n, _ := cfg.Node(core.NodeName(m.Name))
	if n.Witness {
		return control.ServerAnswer{}, control.Refusedf("%s is a witness and has no MySQL", n.Name)
	}
	if req.Forwarded {
		return b.askServer(ctx, n)
	}
	ctx, cancel := context.WithTimeout(ctx, serversWithin)
	defer cancel()
	all := control.ServerAnswer{Node: m.Name, ReadOnly: core.Unknown.String()}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, p := range cfg.Nodes {
		if p.Name == n.Name {
			continue
		}
		asked.Go(func() {
			a, err := b.askFrom(ctx, p.Name, n, req)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				all.Unreachable = append(all.Unreachable, fmt.Sprintf("%s: %v", p.Name, err))
				return
			}
			all.Answered, all.Silent = append(all.Answered, a.Answered...), append(all.Silent, a.Silent...)
			if len(a.Answered) > 0 {
				all.ReadOnly = a.ReadOnly
			}
		})
	}
	asked.Wait()
	slices.Sort(all.Answered)
	slices.Sort(all.Silent)
	slices.Sort(all.Unreachable)
	return all, nil
}

func (b backend) askFrom(ctx context.Context, from core.NodeName, server config.Node, req control.ServerRequest) (control.ServerAnswer, error) {
	if from == b.d.opt.Self.Name {
		return b.askServer(ctx, server)
	}
	return b.peer(from).AskServer(ctx, req)
}

// askServer asks a server from this node, over a connection of its own, with the account of the configuration.
func (b backend) askServer(ctx context.Context, n config.Node) (control.ServerAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, serverWithin)
	defer cancel()
	a := control.ServerAnswer{Node: string(n.Name), ReadOnly: core.Unknown.String()}
	self := string(b.d.opt.Self.Name)
	own, _ := b.d.config().Node(b.d.opt.Self.Name)
	secret, err := own.MySQL.Password()
	if err != nil {
		return a, err // it could not even ask
	}
	readOnly, err := detector.AskOnce(ctx, serverOf(n), own.MySQL.User, secret)
	if err != nil {
		a.Silent = []string{fmt.Sprintf("%s: %v", self, err)}
		return a, nil
	}
	a.Answered, a.ReadOnly = []string{self}, readOnly.String()
	return a, nil
}

// serverOf returns where other nodes reach the server of a node: where the configuration says that their servers do, else at
// its own address unless that is one of loopback or a socket, else at the node's, with the same port.
func serverOf(n config.Node) string {
	const standard = 3306
	if n.NodeSpec.MySQL.IsValid() {
		return n.Server().String()
	}
	at, err := netip.ParseAddrPort(n.MySQL.Address)
	switch {
	case err != nil:
		return netip.AddrPortFrom(n.Address.Addr(), standard).String()
	case at.Addr().IsLoopback():
		return netip.AddrPortFrom(n.Address.Addr(), at.Port()).String()
	}
	return at.String()
}

// Report puts a line into the replicated history.
func (b backend) Report(ctx context.Context, req control.ReportRequest) error {
	if leader, elsewhere := b.leader(req.Forwarded); elsewhere {
		return leader.Report(ctx, req)
	}
	group, err := b.writerGroup(req.Group)
	if err != nil {
		return control.Refusedf("%s", err)
	}
	return refusal(b.d.agent.Remark(ctx, group, req.Text))
}
