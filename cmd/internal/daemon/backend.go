package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
)

// backend answers what is asked of this daemon, by its own commands or by another node.
type backend struct{ d *daemon }

// serveControl serves the local socket and the streams from other nodes until ctx ends.
func (d *daemon) serveControl(ctx context.Context, l net.Listener) error {
	s := control.NewServer(backend{d}, d.log)
	d.node.ListenControl(func(ctx context.Context, c net.Conn, peer core.NodeName) {
		if peer == "" {
			s.ServeHook(ctx, c)
			return
		}
		s.ServeConn(ctx, c)
	})
	return s.Serve(ctx, l)
}

// Status is this node's own picture; it needs nobody else to answer.
func (b backend) Status(ctx context.Context) (control.Status, error) {
	d := b.d
	s, err := d.agent.Status(ctx)
	if err != nil {
		return control.Status{}, err
	}
	c := d.node.Status()
	d.addFindings(&s, c)
	return control.FromCore(s, control.Facts{
		Node: d.opt.Self.Name, Cluster: d.config().Cluster, Version: d.opt.Version, DryRun: d.opt.DryRun, Now: time.Now(),
		Profile: d.config().Profile, Timing: d.config().Timing(), Interface: d.localInterface,
		Clients: d.clients.count, Process: d.processStatus(c),
	}), nil
}

// addFindings adds what the consensus and the timing know and the machine does not.
func (d *daemon) addFindings(s *core.Status, c consensus.Status) {
	add := func(format string, args ...any) {
		s.Problems = append(s.Problems, core.Finding{Subject: "node " + string(d.opt.Self.Name), Text: fmt.Sprintf(format, args...)})
	}
	switch c.State {
	case "joining":
		add("It waits to be taken into the cluster.")
	case "stopped":
		add("Raft has stopped on it; the log says why.")
	}
	if c.Disk != "" {
		add("The disk of state_dir (%s): %s. This node does not lead until it works again; what it holds it keeps. See to the disk.",
			d.config().StateDir, c.Disk)
	}
	if text := certificateFinding(d.config().TLS, d.opt.Self.Name, c, time.Now()); text != "" {
		add("%s", text)
	}
	var rtt time.Duration
	for _, p := range c.Peers {
		rtt = max(rtt, p.RTT)
	}
	if ok, left, needed := d.config().Timing().SurvivesLeader(rtt, c.AppendP99); !ok {
		add("The death of the leader's host may cost the groups of other nodes their lease: %v are left of it, an election may need %v (appends take %v at the 99th percentile).",
			left.Round(time.Millisecond), needed.Round(time.Millisecond), c.AppendP99.Round(100*time.Microsecond))
	}
}

// History reads the replicated history as this node has it.
func (b backend) History(_ context.Context, req control.HistoryRequest) ([]control.HistoryEntry, error) {
	out := []control.HistoryEntry{}
	for _, e := range b.d.node.History() {
		if req.Group == "" || string(e.Group) == req.Group {
			out = append(out, control.HistoryEntry{Index: uint64(e.Index), Time: time.UnixMilli(e.At).UTC(), Kind: e.Kind,
				Group: string(e.Group), Epoch: uint64(e.Epoch), Node: string(e.Node), From: string(e.From), Reason: e.Reason})
		}
	}
	if n := len(out) - req.Limit; req.Limit > 0 && n > 0 {
		out = out[n:]
	}
	return out, nil
}

// Pause freezes or thaws, here or through the leader.
func (b backend) Pause(ctx context.Context, req control.PauseRequest) error {
	if leader, elsewhere := b.leader(req.Forwarded); elsewhere {
		return leader.Pause(ctx, req)
	}
	return refusal(b.d.agent.Pause(ctx, core.GroupName(req.Group), req.On, orDefault(req.Reason, "asked for by an operator")))
}

// leader returns the backend of the leader if that is another node. What was sent on once is not sent on again.
func (b backend) leader(forwarded bool) (control.Backend, bool) {
	name := b.d.node.Leader()
	if forwarded || name == "" || name == b.d.opt.Self.Name {
		return nil, false
	}
	return control.NewClient(func(ctx context.Context) (net.Conn, error) {
		c, err := b.d.node.DialControl(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", control.ErrUnreachable, err)
		}
		return c, nil
	}), true
}

// refusal tells the control protocol which errors are an answer and which a failure.
func refusal(err error) error {
	var no agent.Refusal
	if errors.As(err, &no) {
		return control.Refusedf("%s", string(no))
	}
	return err
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
