package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/remora-ha/remora/cmd/internal/trace"
	"github.com/remora-ha/remora/core"
)

// sentKept is how many reports wait for their acknowledgement: at 10 ms each, 640 ms.
const sentKept = 64

// sent is when a report was sent.
type sent struct {
	seq core.Seq
	at  core.Instant
}

// Metrics are the metrics of one daemon. Observe is for one goroutine, everything else for any.
type Metrics struct {
	self     core.NodeName
	since    int64 // Unix milliseconds of the daemon's start
	registry *prometheus.Registry

	step       prometheus.Histogram
	renewal    prometheus.Histogram
	kernel     *prometheus.HistogramVec
	phase      *prometheus.HistogramVec
	takeovers  *prometheus.CounterVec
	fenceLost  prometheus.Counter
	clockJumps prometheus.Counter

	reports [sentKept]sent
	owners  map[core.GroupName]core.NodeName // the last owner of each group
	causes  map[core.GroupName]string        // why the next grant of a group will be
	handed  map[core.GroupName]core.Epoch    // the last holding of each group that was to end after the grant of the next
}

// New returns the metrics of a daemon that started at since. Status is asked by scrapers, once a second at the most.
func New(self core.NodeName, since time.Time, status Source) *Metrics {
	histogram := func(name, help string, least float64, doublings int) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: "remora_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(least, 2, doublings)}
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "remora_" + name, Help: help}
	}
	m := &Metrics{
		self: self, since: since.UnixMilli(), registry: prometheus.NewRegistry(),
		owners: map[core.GroupName]core.NodeName{}, causes: map[core.GroupName]string{}, handed: map[core.GroupName]core.Epoch{},
		step: prometheus.NewHistogram(histogram("step_duration_seconds",
			"Time that the daemon's loop took to decide what follows from one event.", 2e-6, 14)),
		renewal: prometheus.NewHistogram(histogram("renewal_round_trip_seconds",
			"Time from this node's report to the acknowledgement that renewed its leases.", 1e-4, 14)),
		kernel: prometheus.NewHistogramVec(histogram("kernel_operation_duration_seconds",
			"Time of one operation in the kernel: a transaction of the fence, a bind, an extension of lifetimes, an unbind.", 2e-5, 16), []string{"operation"}),
		phase: prometheus.NewHistogramVec(histogram("takeover_phase_duration_seconds",
			"Time of one phase of a takeover in which this node had a part.", 1e-4, 18), []string{"phase"}),
		takeovers: prometheus.NewCounterVec(counter("takeovers_total",
			"Grants that brought a group to this node since the daemon started, by what had caused them."), []string{"group", "cause"}),
		fenceLost: prometheus.NewCounter(counter("fence_losses_total",
			"Times that somebody else removed the kernel's fence since the daemon started.")),
		clockJumps: prometheus.NewCounter(counter("clock_jumps_total",
			"Times that the machine was found to have been suspended since the daemon started.")),
	}
	for _, operation := range operations {
		m.kernel.WithLabelValues(operation)
	}
	for _, p := range trace.Phases() {
		m.phase.WithLabelValues(p)
	}
	m.registry.MustRegister(m.step, m.renewal, m.kernel, m.phase, m.takeovers, m.fenceLost, m.clockJumps, newPicture(status),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Phase notes how long a phase of a takeover took.
func (m *Metrics) Phase(p trace.Phase, took time.Duration) {
	m.phase.WithLabelValues(p.Name).Observe(took.Seconds())
}

// Observe notes a step of the machine that began at began and has ended now.
func (m *Metrics) Observe(began, now core.Instant, ev core.Event, actions []core.Action) {
	m.step.Observe(now.Sub(began).Seconds())
	switch ev := ev.(type) {
	case core.Received:
		if ack, ok := ev.Msg.(core.Ack); ok {
			m.acknowledged(began, ack)
		}
	case core.Committed:
		for i, op := range ev.Command.Ops {
			if ev.Outcomes[i].Refused == "" {
				m.committed(op, ev.Command.At >= m.since)
			}
		}
	case core.Restored:
		m.restored(ev.View)
	case core.FenceLost:
		m.fenceLost.Inc()
	case core.ClockJumped:
		m.clockJumps.Inc()
	}
	for _, a := range actions {
		if s, ok := a.(core.Send); ok {
			if r, ok := s.Msg.(core.Report); ok {
				m.reports[r.Seq%sentKept] = sent{r.Seq, began}
				break // the others are copies of it
			}
		}
	}
}

func (m *Metrics) acknowledged(now core.Instant, ack core.Ack) {
	if s := &m.reports[ack.Seq%sentKept]; len(ack.Groups) > 0 && s.seq == ack.Seq && s.at != 0 {
		m.renewal.Observe(now.Sub(s.at).Seconds())
		*s = sent{}
	}
}

// The causes of takeovers.
const (
	causeFirst      = "first"
	causeAgain      = "again"
	causeFailover   = "failover"
	causeShutdown   = "shutdown"
	causeSwitchover = "switchover"
	causePreempted  = "preempted"
	causeBalance    = "balance"
	causeAdvice     = "advice"
)

// committed follows what the ledger has accepted. What is older than this daemon is learned from and not counted: the log is
// read again at every start.
func (m *Metrics) committed(op core.Op, fresh bool) {
	switch {
	case op.Move != nil:
		m.causes[op.Move.Group] = causeOfMove(op.Move.Reason)
	case op.Advise != nil:
		m.causes[op.Advise.Group] = causeAdvice
	case op.Abort != nil:
		delete(m.causes, op.Abort.Group)
	case op.Withdraw != nil:
		delete(m.causes, op.Withdraw.Group)
	case op.Release != nil:
		m.released(op.Release)
	case op.Grant != nil:
		g := op.Grant
		if g.Handover {
			m.handed[g.Group] = g.Prev
		}
		if g.To == m.self && fresh {
			m.takeovers.WithLabelValues(string(g.Group), m.cause(g)).Inc()
		}
		m.owners[g.Group] = g.To
		delete(m.causes, g.Group)
	}
}

// released takes the cause from the release if nothing before it has told.
func (m *Metrics) released(r *core.Release) {
	handed, known := m.handed[r.Group]
	switch {
	case known && handed == r.Epoch: // the grant came before and has told
	case m.causes[r.Group] != "":
	case r.Reason == core.ReasonStopping:
		m.causes[r.Group] = causeShutdown
	case strings.HasPrefix(r.Reason, core.ReasonSwitchover):
		m.causes[r.Group] = causeSwitchover
	}
}

func (m *Metrics) cause(g *core.Grant) string {
	known, last := m.causes[g.Group], m.owners[g.Group]
	switch {
	case known != "":
		return known
	case g.Advice != 0:
		return causeAdvice
	case g.Handover:
		return causeSwitchover
	case last == "":
		return causeFirst
	case last == g.To:
		return causeAgain
	default:
		return causeFailover
	}
}

// causeOfMove tells the arbiter's own moves from those of operators.
func causeOfMove(reason string) string {
	switch {
	case strings.HasPrefix(reason, core.ReasonPreempted):
		return causePreempted
	case strings.HasPrefix(reason, core.ReasonBalance):
		return causeBalance
	default:
		return causeSwitchover
	}
}

func (m *Metrics) restored(v core.View) {
	clear(m.causes)
	for name, g := range v.Groups {
		if g.Grant != nil {
			m.owners[name] = g.Grant.To
		}
		if g.Handover != nil {
			m.handed[name] = g.Handover.Epoch
		}
		if g.Move != nil {
			m.causes[name] = causeOfMove(g.Move.Reason)
		}
	}
}
