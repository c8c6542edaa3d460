package netio

import "time"

const (
	// paceOften is the longest time from one claim to the next for which raw system calls are worth it. Above it the
	// monitor's waits for the fence are less than a tenth of what profile fast has.
	paceOften = 30 * time.Millisecond
	// paceSlow is how long a claim may take: what a holder in profile fast keeps in hand for unbinding. Most take 0.05 ms. A
	// virtual machine that gets no processor makes one take a millisecond or two every minute; longer than this it takes
	// because another program holds nf_tables.
	paceSlow = 5 * time.Millisecond
	// paceRest is for how long claims are ordinary calls after a slow one. Programs that set their rules again and again,
	// such as those that route to containers, do so twice a minute or more often.
	paceRest = time.Minute
	// paceWatch is the share of the claims that are ordinary calls in any case: one of as many. The Watcher's look at the
	// interfaces, four times a second, is one, too.
	paceWatch = 64
)

// pace decides which claims are carried out by raw system calls. The Go runtime wakes its monitor before an ordinary one, and
// that costs more than the claim. But a raw call keeps the scheduler's processor, of which a daemon has one, for as long as
// another program holds nf_tables. So it is for who makes claims often, has nothing to do meanwhile that anybody else waits
// for, and was not held up lately. And now and then a call is an ordinary one all the same: a monitor that nothing but
// timers has woken for a while looks only every 10 ms whether a system call blocks, one that was woken by a call every 20 us.
//
// The user sees to it that it is used by one at a time.
type pace struct {
	alone bool // nobody else waits for this process
	rest  time.Duration
	began time.Time // the last claim
	ended time.Time
	until time.Time // ordinary calls until then
	count int
	raw   int // how many were raw
}

// begin returns whether the claim that begins now is to be a raw call.
func (p *pace) begin(now time.Time) bool {
	often := now.Sub(p.ended) <= paceOften
	p.began = now
	p.count++
	if !p.alone || !often || now.Before(p.until) || p.count%paceWatch == 0 {
		return false
	}
	p.raw++
	return true
}

// end takes note of how long the claim took, whatever kind of call it was.
func (p *pace) end(now time.Time) {
	p.ended = now
	if now.Sub(p.began) > paceSlow {
		p.until = now.Add(p.rest)
	}
}
