package consensus

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// firewall drops packets in the namespace of the test process, as a power cut or a pulled cable does: nobody gets a
// reset.
type firewall struct {
	t     *testing.T
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

func newFirewall(t *testing.T) *firewall {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	f := &firewall{t: t, conn: c}
	f.table = c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "test"})
	f.chain = c.AddChain(&nftables.Chain{Name: "in", Table: f.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	must(t, c.Flush())
	t.Cleanup(func() {
		c.DelTable(f.table)
		must(t, c.Flush())
	})
	return f
}

// drop drops what from sends to to.
func (f *firewall) drop(from, to netip.Addr) {
	f.t.Helper()
	address := func(offset uint32, a netip.Addr) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
		}
	}
	exprs := append(address(12, from), address(16, to)...)
	f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: f.chain, Exprs: append(exprs, &expr.Verdict{Kind: expr.VerdictDrop})})
	must(f.t, f.conn.Flush())
}

// dropDatagrams drops all UDP.
func (f *firewall) dropDatagrams() {
	f.t.Helper()
	f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: f.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	must(f.t, f.conn.Flush())
}

// cut separates a member from the others in both directions.
func (f *firewall) cut(m *member, others ...*member) {
	f.t.Helper()
	for _, o := range others {
		f.drop(m.address(), o.address())
		f.drop(o.address(), m.address())
	}
}

// heal lets everything through again.
func (f *firewall) heal() {
	f.t.Helper()
	f.conn.FlushChain(f.chain)
	must(f.t, f.conn.Flush())
}

// address is the member's own.
func (m *member) address() netip.Addr {
	for _, s := range m.c.specs {
		if s.Name == m.name {
			return s.Address.Addr()
		}
	}
	return netip.Addr{}
}
