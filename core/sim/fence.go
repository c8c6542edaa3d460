package sim

import (
	"net/netip"
	"time"

	"github.com/remora-ha/remora/core"
)

// armedReport is a report that lives in the kernel's fence until it dies, at a point of true time.
type armedReport struct {
	seq  core.Seq
	dies int64
}

// alive reports whether the fence lets pass what points to a report.
func (k *kernel) alive(seq core.Seq) bool {
	r := &k.armed[seq%maxReports]
	return seq != 0 && r.seq == seq && k.n.w.now < r.dies
}

// arm adds a report to the fence.
func (k *kernel) arm(seq core.Seq, ttl time.Duration) {
	if k.n.w.opt.Break == GenerousFence {
		ttl *= 2
	}
	k.armed[seq%maxReports] = armedReport{seq: seq, dies: k.n.clock.when(k.n.clock.at(k.n.w.now).Add(ttl))}
}

// open makes a group's addresses point to a report, except those that were closed since the claim began.
func (p *process) open(o core.Opening, since int64) {
	k := &p.n.kern
	for _, pre := range o.Addresses {
		i := addressIndex(pre.Addr())
		c := &k.addrs[i]
		if c.shut >= since {
			continue
		}
		k.n.w.or.opens(p, o, i)
		before := k.answers(i)
		c.report = o.Report
		if !before && k.answers(i) {
			k.n.w.or.answering(k.n, i)
		}
	}
}

// close is the first step of giving up. It needs no lock of the routing tables and so does not hang.
func (k *kernel) close(addrs []netip.Prefix) {
	for _, pre := range addrs {
		c := &k.addrs[addressIndex(pre.Addr())]
		c.report, c.shut = 0, k.n.w.now
	}
}

// closeAll is what is left of the fence when a process builds it anew, or when somebody has flushed it.
func (k *kernel) closeAll() {
	k.armed = [maxReports]armedReport{}
	for i := range k.addrs {
		k.addrs[i].report, k.addrs[i].shut = 0, k.n.w.now
	}
}

// reportsMax bounds the reports that wait for the fence.
const reportsMax = 8

// fencedReport is a report with what the fence must be told before it is sent.
type fencedReport struct {
	arm   core.Arm
	sends []core.Send
}

// report lets the fence know of a report and then sends it, one after the other, beside the loop.
func (p *process) report(r fencedReport) {
	if len(p.reports) >= reportsMax {
		return
	}
	p.reports = append(p.reports, r)
	if len(p.reports) == 1 {
		p.armNext()
	}
}

func (p *process) armNext() {
	r, k, since := p.reports[0], &p.n.kern, p.n.w.now
	open := p.openings(r.arm.Open)
	p.systemCall(false, func(failed bool) {
		if failed {
			return
		}
		k.arm(r.arm.Seq, r.arm.TTL)
		for _, o := range open {
			p.open(o, since)
		}
	}, func(failed bool) {
		if !failed {
			for _, s := range r.sends {
				p.send(s)
			}
		}
		p.reports = p.reports[1:]
		if len(p.reports) > 0 {
			p.armNext()
		}
	})
}

// openings leaves out what was given up since the report was made.
func (p *process) openings(asked []core.Opening) []core.Opening {
	open := make([]core.Opening, 0, len(asked))
	for _, o := range asked {
		if o.Epoch > p.gate[groupIndex(o.Group)] || p.n.w.opt.Break == OpenGivenUp {
			open = append(open, o)
		}
	}
	return open
}
