package sim

import (
	"testing"
)

// broken is a rule that is broken on purpose and what must notice.
type brokenRule struct {
	rule  Break
	see   Rule // the oracles that are switched on: each of them must see it alone
	where Kernel
	// faults makes the circumstances likely in which the rule matters; nil lets each seed choose.
	faults []faultKind
	within uint64 // seeds
	// promote sees to it that a group has policy promote, readers that there are readers, slow that replicas are.
	promote, readers, slow bool
}

// brokenRules lists what is broken, and within how many seeds each oracle must see it by itself. The figures are several
// times what was needed when this was written, so that a change of the simulator does not upset them.
func brokenRules() []brokenRule {
	return []brokenRule{
		{rule: ReleaseBeforeUnbind, see: I1, where: KernelLeaseOff, faults: []faultKind{mysqlFlip, move, linkFlip}, within: 200},
		{rule: ReleaseBeforeUnbind, see: I2, within: 200},
		{rule: FailedUnbindCounts, see: I2, within: 1000},
		{rule: FailedUnbindCounts, see: I9, faults: []faultKind{bindsFail, move, mysqlFlip}, within: 200},
		{rule: ClaimEndsEarly, see: I6, within: 100},
		{rule: ClaimLate, see: I5, faults: []faultKind{kernelHang, deletedByHand}, within: 1000},
		{rule: LeaseFromAnswer, see: I3, within: 500},
		{rule: LeaseFromAnswer, see: I5, within: 200},
		{rule: LeaseFromAnswer, see: I1, faults: []faultKind{lossy, isolate}, within: 8000},
		{rule: NoMargin, see: I2, faults: []faultKind{isolate}, within: 1500},
		{rule: NoWaitInOffice, see: I1, within: 2000},
		{rule: NoWaitInOffice, see: I2, within: 200},
		{rule: AckWhileGranting, see: I2, faults: []faultKind{slowNode, diskStall, isolate}, within: 20000},
		{rule: ConfirmTermAtSending, see: I1, faults: []faultKind{twoLeaders, transfer}, within: 1000},
		{rule: ConfirmTermAtSending, see: I2, faults: []faultKind{twoLeaders, transfer}, within: 1000},
		{rule: EchoAnyTerm, see: I1, faults: []faultKind{twoLeaders, transfer}, within: 1000},
		{rule: EchoAnyTerm, see: I2, faults: []faultKind{twoLeaders, transfer}, within: 1000},
		{rule: ReportEchoesAnyTerm, see: I1, faults: []faultKind{twoLeaders, transfer, isolate, lossy}, within: 10000},
		{rule: ReportEchoesAnyTerm, see: I2, faults: []faultKind{twoLeaders, transfer, isolate, lossy}, within: 3000},
		{rule: OldOffice, see: I2, faults: []faultKind{twoLeaders, transfer}, within: 1000},
		{rule: SameIncarnation, see: I3, within: 2000},
		{rule: RenewAfterRelease, see: I1, within: 2000},
		{rule: RenewAfterRelease, see: I2, within: 200},
		{rule: ForgetLongLeases, see: I1, faults: []faultKind{shortenLease}, within: 1000},
		{rule: ForgetLongLeases, see: I2, faults: []faultKind{shortenLease}, within: 1000},
		{rule: AnnounceEarly, see: I4, within: 100},
		{rule: UnbindLate, see: I5, within: 100},
		{rule: DeafToHealth, see: I5, within: 200},
		{rule: DeafToAcks, see: I6, within: 100},
		{rule: KeepLeftovers, see: I9, within: 200},
		{rule: UnbindUntouched, see: I9, within: 200},
		{rule: NoWaitAtStart, see: I3, within: 200},
		{rule: OldSnapshot, see: I7, within: 100},
		{rule: GenerousFence, see: I1, within: 500},
		{rule: GenerousLifetime, see: I1, where: KernelLifetimes, faults: []faultKind{kill, freeze, isolate}, within: 2000},
		{rule: ShortMargin, see: I1, where: KernelLifetimes, faults: []faultKind{kill, freeze, isolate}, within: 2000},
		{rule: GrantUnasked, see: I1, within: 3000},
		{rule: GrantUnasked, see: I2, within: 200},
		{rule: VoteAtOnce, see: Raft, faults: []faultKind{power, isolate}, within: 200},
		{rule: PromoteLate, see: I10, promote: true, within: 2000},
		{rule: BindBeforeWritable, see: I10, promote: true, within: 100},
		{rule: ChooseOnMovingSets, see: I10, promote: true, within: 2000},
		{rule: DrainedEarly, see: I10, promote: true, faults: []faultKind{move, transfer}, within: 1000},
		{rule: OldCatchUp, see: I10, promote: true, slow: true, faults: []faultKind{move}, within: 5000},
		{rule: BlindToWriters, see: I10, faults: []faultKind{mysqlFlip, move}, within: 5000},
		{rule: DeafToLag, see: I3, readers: true, within: 200},
		{rule: DeafToLag, see: I5, readers: true, within: 200},
		{rule: ClaimHandedOver, see: I1, faults: []faultKind{move, lossy, isolate}, within: 1000},
		{rule: ClaimHandedOver, see: I2, faults: []faultKind{move}, within: 200},
		{rule: EndHandover, see: I1, faults: []faultKind{move, lossy, isolate}, within: 1000},
		{rule: EndHandover, see: I2, faults: []faultKind{move}, within: 200},
		{rule: OpenGivenUp, see: I5, faults: []faultKind{kernelHang, kernelSlow, mysqlFlip, move}, within: 100},
		{rule: VoteTwice, see: Raft, within: 200},
	}
}

func TestOraclesSeeBrokenRules(t *testing.T) {
	for _, b := range brokenRules() {
		if raceDetector && b.within > 500 {
			continue // ten times slower and nothing to gain: a world has one goroutine
		}
		t.Run(b.rule.String()+", "+b.see.String(), func(t *testing.T) {
			opt := Options{Kernel: b.where, faults: b.faults, promote: b.promote, readers: b.readers, slow: b.slow}
			kept := opt
			opt.Break, opt.Rules = b.rule, b.see
			s := Search(1, b.within, 1, opt)
			if len(s.Failures) == 0 {
				t.Fatalf("%v: %v did not see it in %d seeds", b.rule, b.see, s.Seeds)
			}
			f := s.Failures[0]
			kept.Seed = f.Seed
			if r := Run(kept); r.Failure != nil {
				t.Errorf("without the broken rule: %v", r.Failure)
			}
			t.Logf("%-36s %-4v seed %5d of %5d  %s", b.rule, b.see, f.Seed, b.within, f.Text)
		})
	}
}

// Every rule that can be broken is broken, and every oracle sees at least one of them.
func TestAllRulesAreBroken(t *testing.T) {
	var broken [breaks]bool
	var seeing Rule
	for _, b := range brokenRules() {
		broken[b.rule] = true
		seeing |= b.see
	}
	for b := Nothing + 1; b < breaks; b++ {
		if !broken[b] {
			t.Errorf("nobody breaks %q", b)
		}
	}
	if missing := AllRules &^ seeing; missing != 0 {
		t.Errorf("no broken rule is there for %v", missing)
	}
}
