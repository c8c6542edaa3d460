package netio

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// leasesMax bounds the reports held in the kernel, which removes what is over once a second.
	leasesMax = 1 << 16
	// elementsPerMessage keeps a message's list of elements below the 64 KiB that a netlink attribute can have.
	elementsPerMessage = 500
	// Hooks of the family arp (linux/netfilter_arp.h).
	arpIn, arpOut = 0, 1
	// Registers of 16 bytes: for an address, for the number that it points to, and for the packet's mark.
	regAddress, regNumber, regMark = unix.NFT_REG_1, unix.NFT_REG_2, unix.NFT_REG_3
)

// fenceTables is the layout of the fence's tables in the kernel. Sets belong to one table, so each family has its own.
type fenceTables struct {
	inet, arp    *nftables.Table
	wire         *nftables.Table // of frames that go out; nil without a hook for them
	frameHook    nftables.ChainHook
	input        *nftables.Chain // of inet
	turn         *nftables.Set
	leases       []*nftables.Set
	bundles      []*nftables.Set
	addr4, addr6 []*nftables.Set
	rules        []*nftables.Rule // of the addresses, then of the ports, then of the frames
	addressRules []*nftables.Rule
	portRules    []*nftables.Rule
	portFence    *PortFence
	frameRules   []*nftables.Rule // of the interfaces on which frames are guarded
}

// newFenceTables lays out the tables: maps from each guarded address to a bundle's number and from there to a report's, the
// reports that are alive, and the rules that drop what is guarded and does not lead to one of these. With frames there is a
// table for what goes out through packet sockets.
func newFenceTables(name string, frames bool) *fenceTables {
	t := &fenceTables{
		inet: &nftables.Table{Family: nftables.TableFamilyINet, Name: name},
		arp:  &nftables.Table{Family: nftables.TableFamilyARP, Name: name},
	}
	num := nftables.TypeMark
	set := func(table *nftables.Table, id uint32, s nftables.Set) *nftables.Set {
		s.Table, s.ID = table, id // the number has a meaning within one transaction only
		return &s
	}
	leases := nftables.Set{Name: "leases", KeyType: num, HasTimeout: true, Size: leasesMax}
	bundles := nftables.Set{Name: "bundles", KeyType: num, DataType: num, IsMap: true}
	addr4 := nftables.Set{Name: "addr4", KeyType: nftables.TypeIPAddr, DataType: num, IsMap: true}
	addr6 := nftables.Set{Name: "addr6", KeyType: nftables.TypeIP6Addr, DataType: num, IsMap: true}
	t.turn = set(t.inet, 1, nftables.Set{Name: "turn", KeyType: num})
	t.leases = []*nftables.Set{set(t.inet, 2, leases), set(t.arp, 3, leases)}
	t.addr4 = []*nftables.Set{set(t.inet, 4, addr4), set(t.arp, 5, addr4)}
	t.addr6 = []*nftables.Set{set(t.inet, 6, addr6)}
	t.bundles = []*nftables.Set{set(t.inet, 7, bundles), set(t.arp, 8, bundles)}
	if frames {
		t.frameHook = *nftables.ChainHookEgress
		t.wire = &nftables.Table{Family: nftables.TableFamilyNetdev, Name: name}
		t.leases = append(t.leases, set(t.wire, 9, leases))
		t.bundles = append(t.bundles, set(t.wire, 10, bundles))
		t.addr4 = append(t.addr4, set(t.wire, 11, addr4))
		t.addr6 = append(t.addr6, set(t.wire, 12, addr6))
	}
	t.input = baseChain(t.inet, "input", *nftables.ChainHookInput)
	t.addressRules = slices.Concat(t.inetRules(), t.arpRules())
	t.arrange()
	return t
}

// arrange puts the rules together.
func (t *fenceTables) arrange() {
	t.rules = slices.Concat(t.addressRules, t.portRules, t.frameRules)
}

// all returns the tables, in the order in which leases and bundles have their sets.
func (t *fenceTables) all() []*nftables.Table {
	if t.wire == nil {
		return []*nftables.Table{t.inet, t.arp}
	}
	return []*nftables.Table{t.inet, t.arp, t.wire}
}

func (t *fenceTables) sets() []*nftables.Set {
	return slices.Concat([]*nftables.Set{t.turn}, t.leases, t.bundles, t.addr4, t.addr6)
}

// chains returns the chains that the rules are in, in their order.
func (t *fenceTables) chains() (cs []*nftables.Chain) {
	for _, r := range t.rules {
		if !slices.Contains(cs, r.Chain) {
			cs = append(cs, r.Chain)
		}
	}
	return cs
}

// baseChain is a chain that comes before everybody else's and lets pass what its rules do not drop.
func baseChain(t *nftables.Table, name string, hook nftables.ChainHook) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeFilter, Hooknum: &hook,
		Priority: nftables.ChainPriorityFirst, Policy: &accept}
}

// inetRules drops packets to and from closed addresses, and neighbour discovery about them, which is sent to multicast
// addresses and may come from another address, and so has chains of its own, to go on after them.
func (t *fenceTables) inetRules() (rules []*nftables.Rule) {
	in := t.input
	out := baseChain(t.inet, "output", *nftables.ChainHookOutput)
	asked := &nftables.Chain{Table: t.inet, Name: "asked"}
	told := &nftables.Chain{Table: t.inet, Name: "told"}
	v4 := meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4)
	v6 := meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
	nd := func(kind uint8) []expr.Any {
		return slices.Concat(meta(expr.MetaKeyL4PROTO, unix.IPPROTO_ICMPV6), []expr.Any{
			&expr.Payload{DestRegister: regAddress, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: []byte{kind}},
		})
	}
	jump := func(c *nftables.Chain, match []expr.Any, to *nftables.Chain) {
		rules = append(rules, &nftables.Rule{Table: t.inet, Chain: c,
			Exprs: slices.Concat(match, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to.Name}})})
	}
	const network, transport = expr.PayloadBaseNetworkHeader, expr.PayloadBaseTransportHeader
	only := func(c *nftables.Chain, alive expr.VerdictKind, addrs *nftables.Set, match []expr.Any, base expr.PayloadBase, off uint32) {
		rules = append(rules, t.onlyAlive(c, alive, addrs, match, base, off)...)
	}
	only(asked, expr.VerdictReturn, t.addr6[0], nd(NeighborSolicitation), transport, 8) // target (RFC 4861, 4.3)
	only(told, expr.VerdictReturn, t.addr6[0], nd(NeighborAdvertisement), transport, 8) // target (RFC 4861, 4.4)
	jump(in, nd(NeighborSolicitation), asked)
	only(in, expr.VerdictAccept, t.addr4[0], v4, network, 16) // destination address
	only(in, expr.VerdictAccept, t.addr6[0], v6, network, 24) // destination address
	jump(out, nd(NeighborAdvertisement), told)
	only(out, expr.VerdictAccept, t.addr4[0], v4, network, 12) // source address
	only(out, expr.VerdictAccept, t.addr6[0], v6, network, 8)  // source address
	return rules
}

// arpRules drops questions about closed addresses and what is said in their name. What is said in the name of a guarded
// address passes inwards: it is its owner's announcement, from which our own neighbour cache shall learn.
func (t *fenceTables) arpRules() []*nftables.Rule {
	in, out := baseChain(t.arp, "input", arpIn), baseChain(t.arp, "output", arpOut)
	const network, sender, target = expr.PayloadBaseNetworkHeader, 14, 24
	announced := append(numberOf(t.addr4[1], network, sender), &expr.Verdict{Kind: expr.VerdictAccept})
	return slices.Concat([]*nftables.Rule{{Table: t.arp, Chain: in, Exprs: announced}},
		t.onlyAlive(in, expr.VerdictAccept, t.addr4[1], nil, network, target),
		t.onlyAlive(out, expr.VerdictAccept, t.addr4[1], nil, network, sender))
}

func meta(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: regAddress},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regAddress, Data: []byte{value}},
	}
}

// onlyAlive is two rules about packets that match and have an address at off: if its bundle points to a report that is
// alive, the verdict is alive, and otherwise a packet of a guarded address is dropped. A lookup that finds nothing ends its
// rule, so whatever is missing on the way to the report closes the address.
func (t *fenceTables) onlyAlive(c *nftables.Chain, alive expr.VerdictKind, addrs *nftables.Set, match []expr.Any, base expr.PayloadBase, off uint32) []*nftables.Rule {
	load := &expr.Payload{DestRegister: regAddress, Base: base, Offset: off, Len: addrs.KeyType.Bytes}
	return []*nftables.Rule{
		{Table: c.Table, Chain: c, Exprs: slices.Concat(match, t.alive(addrs, load), []expr.Any{&expr.Verdict{Kind: alive}})},
		{Table: c.Table, Chain: c, Exprs: slices.Concat(match, numbered(addrs, load), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})},
	}
}

// alive ends the rule unless the report is alive to which the bundle points of the address that load puts into regAddress.
func (t *fenceTables) alive(addrs *nftables.Set, load expr.Any) []expr.Any {
	i := slices.Index(t.all(), addrs.Table)
	bundles, leases := t.bundles[i], t.leases[i]
	return slices.Concat(numbered(addrs, load), found(bundles, regNumber), []expr.Any{
		&expr.Lookup{SourceRegister: regNumber, SetName: leases.Name, SetID: leases.ID}})
}

// numberOf ends the rule unless the address at off is guarded, and loads the number that it points to.
func numberOf(addrs *nftables.Set, base expr.PayloadBase, off uint32) []expr.Any {
	return numbered(addrs, &expr.Payload{DestRegister: regAddress, Base: base, Offset: off, Len: addrs.KeyType.Bytes})
}

// numbered is numberOf for the address that load puts into regAddress.
func numbered(addrs *nftables.Set, load expr.Any) []expr.Any {
	return slices.Concat([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: regMark}, load}, found(addrs, regAddress))
}

// found looks up in a map what is in a register, and loads the number that is found; regMark has the packet's mark.
//
// The number goes through the packet's mark, and the mark is put back, because nft(8) dies when it lists a lookup in a
// set of what was found in a map. Between the two nothing ends the rule, and nobody else has the packet.
func found(m *nftables.Set, key uint32) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: key, DestRegister: regNumber, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: regNumber},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regNumber},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: regMark},
	}
}

// fenceBatch is a transaction in the making. With elems set it can have set elements only.
type fenceBatch struct {
	t     *fenceTables
	c     *nftables.Conn
	elems *elementBatch
	err   error

	marks []byte       // what mark has returned
	list  []setElement // those that are being encoded
}

// again begins another transaction that has set elements only, in the memory of the one before.
func (b *fenceBatch) again(t *fenceTables, elems *elementBatch) {
	b.t, b.elems, b.err, b.marks = t, elems, nil, b.marks[:0]
}

// mark is the function of that name with the batch's memory.
func (b *fenceBatch) mark(n uint32) []byte {
	at := len(b.marks)
	b.marks = binary.BigEndian.AppendUint32(b.marks, n)
	return b.marks[at:]
}

// number is the function of that name with the batch's memory.
func (b *fenceBatch) number(seq uint64) []byte { return b.mark(short(seq)) }

// single is a list of one element, until the next list.
func (b *fenceBatch) single(el setElement) []setElement {
	b.list = append(b.list[:0], el)
	return b.list
}

func (b *fenceBatch) add(s *nftables.Set, elements []setElement) {
	for part := range slices.Chunk(elements, elementsPerMessage) {
		switch {
		case b.elems != nil:
			b.elems.elements(false, byte(s.Table.Family), s.Table.Name, s.Name, part)
		case b.err == nil:
			b.err = b.c.SetAddElements(s, libraryElements(part))
		}
	}
}

// remove removes elements that have nothing but a key, which is enough.
func (b *fenceBatch) remove(s *nftables.Set, elements []setElement) {
	for part := range slices.Chunk(elements, elementsPerMessage) {
		switch {
		case b.elems != nil:
			b.elems.elements(true, byte(s.Table.Family), s.Table.Name, s.Name, part)
		case b.err == nil:
			b.err = b.c.SetDeleteElements(s, libraryElements(part))
		}
	}
}

func libraryElements(elements []setElement) []nftables.SetElement {
	theirs := make([]nftables.SetElement, len(elements))
	for i, el := range elements {
		theirs[i] = nftables.SetElement{Key: el.key, Val: el.value, Timeout: el.timeout}
	}
	return theirs
}

// take makes the transaction fail with ENOENT if it is not the turn of the one that made it.
func (b *fenceBatch) take(turn, next uint32) {
	b.remove(b.t.turn, b.single(setElement{key: b.mark(turn)}))
	b.add(b.t.turn, b.single(setElement{key: b.mark(next)}))
}

// arm adds a report that is alive for ttl.
func (b *fenceBatch) arm(seq uint64, ttl time.Duration) {
	report := b.single(setElement{key: b.number(seq), timeout: ttl})
	for _, s := range b.t.leases {
		b.add(s, report)
	}
}

// bundle makes bundles point to reports, and addresses to bundles that are new.
func (b *fenceBatch) bundle(p claimPlan) {
	b.list = b.list[:0]
	for _, n := range p.kept {
		b.list = append(b.list, setElement{key: b.mark(n)})
	}
	for _, n := range p.remove {
		b.list = append(b.list, setElement{key: b.mark(n)})
	}
	for n, seq := range p.numbers {
		b.list = append(b.list, setElement{key: b.mark(n), value: b.number(seq)})
	}
	kept, rest := b.list[:len(p.kept)], b.list[len(p.kept):]
	removed, vals := rest[:len(p.remove)], rest[len(p.remove):]
	for _, s := range b.t.bundles {
		b.remove(s, kept)
		b.remove(s, removed)
		b.add(s, vals)
	}
	b.point(p.to)
}

// end makes bundles point to no report.
func (b *fenceBatch) end(bundles []uint32) {
	var keys, vals []setElement
	for _, n := range bundles {
		keys = append(keys, setElement{key: mark(n)})
		vals = append(vals, setElement{key: mark(n), value: number(closedNumber)})
	}
	for _, s := range b.t.bundles {
		b.remove(s, keys)
		b.add(s, vals)
	}
}

// point makes guarded addresses point to bundles. An element's data can not be changed, so it is replaced.
func (b *fenceBatch) point(addrs map[netip.Addr]uint32) {
	keys4, keys6, vals4, vals6 := fenceElements(addrs)
	for _, s := range b.t.addr4 {
		b.remove(s, keys4)
		b.add(s, vals4)
	}
	for _, s := range b.t.addr6 {
		b.remove(s, keys6)
		b.add(s, vals6)
	}
}

// guard adds addresses, closed.
func (b *fenceBatch) guard(addrs []netip.Addr) {
	_, _, vals4, vals6 := fenceElements(allClosed(addrs))
	for _, s := range b.t.addr4 {
		b.add(s, vals4)
	}
	for _, s := range b.t.addr6 {
		b.add(s, vals6)
	}
}

// unguard removes addresses.
func (b *fenceBatch) unguard(addrs []netip.Addr) {
	keys4, keys6, _, _ := fenceElements(allClosed(addrs))
	for _, s := range b.t.addr4 {
		b.remove(s, keys4)
	}
	for _, s := range b.t.addr6 {
		b.remove(s, keys6)
	}
}

func allClosed(addrs []netip.Addr) map[netip.Addr]uint32 {
	m := make(map[netip.Addr]uint32, len(addrs))
	for _, a := range addrs {
		m[a] = closedNumber
	}
	return m
}

// fenceElements returns the elements of the maps for addresses of each family, without and with data.
func fenceElements(addrs map[netip.Addr]uint32) (keys4, keys6, vals4, vals6 []setElement) {
	for a, n := range addrs {
		k, v := setElement{key: a.AsSlice()}, setElement{key: a.AsSlice(), value: mark(n)}
		if a.Is4() {
			keys4, vals4 = append(keys4, k), append(vals4, v)
		} else {
			keys6, vals6 = append(keys6, k), append(vals6, v)
		}
	}
	return keys4, keys6, vals4, vals6
}

// clear removes the tables, if they are there.
func (b *fenceBatch) clear() {
	for _, t := range b.t.all() {
		b.drop(t)
	}
}

// drop removes a table, if it is there.
func (b *fenceBatch) drop(t *nftables.Table) {
	b.c.AddTable(t) // deleting one that is not there would fail
	b.c.DelTable(t)
}

// build makes the tables anew with all addresses closed. The rules come last and together: the kernel repeats them in
// its answer, and the library expects that to be one datagram.
func (b *fenceBatch) build(addrs []netip.Addr, turn uint32) {
	for _, t := range b.t.all() {
		b.c.AddTable(t)
	}
	for _, s := range b.t.sets() {
		if b.err == nil {
			b.err = b.c.AddSet(s, nil)
		}
	}
	b.add(b.t.turn, []setElement{{key: mark(turn)}})
	b.guard(addrs)
	for _, c := range b.t.chains() {
		b.c.AddChain(c)
	}
	for _, r := range b.t.rules {
		b.c.AddRule(r)
	}
}
