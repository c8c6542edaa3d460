package daemon

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/netio"
)

// confirmWithin is how long a peer may take to see the new owner on the link.
const confirmWithin = 50 * time.Millisecond

// lookouts are the nodes that look whether a new owner is on the link: itself, which says what hardware address it has, and
// all others.
type lookouts struct {
	owner  lookout
	others []lookout
}

// lookout asks one node what it sees.
type lookout struct {
	sight func(context.Context, control.SightRequest) (control.Sight, error)
	close func()
}

// lookouts dials every node at once, so that the streams are there by the time that the owner serves. They end with ctx.
func (b backend) lookouts(ctx context.Context, owner core.NodeName) lookouts {
	var all lookouts
	for _, n := range b.d.config().Nodes {
		l := lookout{sight: b.Sight, close: func() {}}
		if n.Name != b.d.opt.Self.Name {
			l = dialEarly(ctx, func(ctx context.Context) (net.Conn, error) { return b.d.node.DialControl(ctx, n.Name) })
		}
		if n.Name == owner {
			all.owner = l
		} else {
			all.others = append(all.others, l)
		}
	}
	return all
}

// dialEarly returns a lookout whose stream is dialled already when it is asked its one question.
func dialEarly(ctx context.Context, dial func(context.Context) (net.Conn, error)) lookout {
	ctx, cancel := context.WithCancel(ctx)
	var conn net.Conn
	var err error
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		conn, err = dial(ctx)
	}()
	client := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		select {
		case <-ready:
			return conn, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return lookout{sight: client.Sight, close: func() {
		cancel()
		<-ready
		if err == nil {
			_ = conn.Close()
		}
	}}
}

func (l lookouts) close() {
	for _, o := range append(l.others, l.owner) {
		o.close()
	}
}

// confirmed reports whether a node other than the owner sees the owner's hardware address on the link. All are asked side by
// side: one that is cut off holds nobody up.
func (l lookouts) confirmed(ctx context.Context, group core.GroupName) bool {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	ask := func(o lookout, to chan<- control.Sight) {
		s, err := o.sight(ctx, control.SightRequest{Group: string(group)})
		if err != nil {
			s = control.Sight{}
		}
		to <- s
	}
	own, seen := make(chan control.Sight, 1), make(chan control.Sight, len(l.others))
	go ask(l.owner, own)
	for _, o := range l.others {
		go ask(o, seen)
	}
	var want string
	var got []string
	for range len(l.others) + 1 {
		select {
		case s := <-own:
			if !s.Own || s.MAC == "" {
				return false
			}
			want = s.MAC
		case s := <-seen:
			if !s.Own && s.MAC != "" { // else it knows the address from itself and not from the link
				got = append(got, s.MAC)
			}
		case <-ctx.Done():
			return false
		}
		if slices.Contains(got, want) {
			return true
		}
	}
	return false
}

// Sight asks the link, by an ARP probe that claims nothing, who answers for the first address of a group. Others may do so
// at the same time.
func (b backend) Sight(ctx context.Context, req control.SightRequest) (control.Sight, error) {
	d := b.d
	state, known := d.node.View().Groups[core.GroupName(req.Group)]
	if !known || len(state.Spec.Addresses) == 0 {
		return control.Sight{}, control.Refusedf("there is no group %q here", req.Group)
	}
	spec := state.Spec
	spec.Interface, spec.Addresses = d.localInterface(spec), spec.Addresses[:1]
	s, err := d.agent.Status(ctx)
	if err != nil {
		return control.Sight{}, err
	}
	for _, g := range s.Groups {
		if g.Name == spec.Name && g.Phase == core.Serving.String() {
			i, err := net.InterfaceByName(spec.Interface)
			if err != nil {
				return control.Sight{}, fmt.Errorf("look at the interface of group %s: %w", spec.Name, err)
			}
			return control.Sight{MAC: i.HardwareAddr.String(), Own: true}, nil
		}
	}
	if d.opt.DryRun {
		return control.Sight{}, nil
	}
	mac, err := d.binder.Sight(ctx, core.Probe{Group: spec.Name, Epoch: state.Epoch, Spec: spec, For: confirmWithin / 2,
		NotAfter: netio.Boottime().Add(confirmWithin)})
	if err != nil {
		return control.Sight{}, err
	}
	return control.Sight{MAC: mac.String()}, nil
}
