package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
)

// The operations in the kernel whose time is taken.
const (
	opArm    = "fence"
	opBind   = "bind"
	opExtend = "extend"
	opUnbind = "unbind"
)

var operations = []string{opArm, opBind, opExtend, opUnbind}

// timed takes the time of what a binder does.
type timed struct {
	agent.Binder
	arm, bind, extend, unbind prometheus.Observer
}

// Binder returns a binder that takes the time of what b does.
func (m *Metrics) Binder(b agent.Binder) agent.Binder {
	return timed{b, m.kernel.WithLabelValues(opArm), m.kernel.WithLabelValues(opBind), m.kernel.WithLabelValues(opExtend), m.kernel.WithLabelValues(opUnbind)}
}

func took(o prometheus.Observer, f func() error) error {
	start := time.Now()
	err := f()
	o.Observe(time.Since(start).Seconds())
	return err
}

func (t timed) Arm(ctx context.Context, a core.Arm) error {
	return took(t.arm, func() error { return t.Binder.Arm(ctx, a) })
}

func (t timed) Bind(ctx context.Context, a core.Bind) error {
	return took(t.bind, func() error { return t.Binder.Bind(ctx, a) })
}

func (t timed) Extend(ctx context.Context, a core.Extend) error {
	return took(t.extend, func() error { return t.Binder.Extend(ctx, a) })
}

func (t timed) Unbind(ctx context.Context, a core.Unbind) error {
	return took(t.unbind, func() error { return t.Binder.Unbind(ctx, a) })
}
