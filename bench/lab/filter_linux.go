package lab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// filter is the table of nftables in the bridge that drops frames.
type filter struct {
	conn   *nftables.Conn
	chains map[hook]*nftables.Chain
}

func newFilter(sw *Namespace) (*filter, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(sw.fd))
	if err != nil {
		return nil, fmt.Errorf("open nftables in %s: %w", sw.Name, err)
	}
	f := &filter{conn: conn, chains: map[hook]*nftables.Chain{}}
	table := conn.AddTable(&nftables.Table{Name: "faults", Family: nftables.TableFamilyBridge})
	hooks := []struct {
		at   hook
		name string
		hook *nftables.ChainHook
	}{
		{hookEnter, "enter", nftables.ChainHookPrerouting},
		{hookForward, "forward", nftables.ChainHookForward},
		{hookLeave, "leave", nftables.ChainHookPostrouting},
	}
	for _, h := range hooks {
		f.chains[h.at] = conn.AddChain(&nftables.Chain{Name: h.name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: h.hook, Priority: nftables.ChainPriorityRef(-200)})
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("make the table of faults in %s: %w", sw.Name, err)
	}
	return f, nil
}

// apply replaces all rules in one transaction, so there is no moment without the ones that stay.
func (f *filter) apply(rules []dropRule) error {
	for _, at := range []hook{hookEnter, hookForward, hookLeave} {
		f.conn.FlushChain(f.chains[at])
	}
	for _, r := range rules {
		chain := f.chains[r.at]
		f.conn.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: r.exprs()})
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("load the rules of %d faults: %w", len(rules), err)
	}
	return nil
}

func (r dropRule) exprs() []expr.Any {
	var es []expr.Any
	if r.in != "" {
		es = append(es, matchName(expr.MetaKeyIIFNAME, r.in)...)
	}
	if r.out != "" {
		es = append(es, matchName(expr.MetaKeyOIFNAME, r.out)...)
	}
	if r.percent > 0 {
		es = append(es, chance(r.percent)...)
	}
	return append(es, &expr.Verdict{Kind: expr.VerdictDrop})
}

func matchName(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded}}
}

// chance matches a random share of the frames. The number is turned to network byte order because nftables compares
// registers byte by byte.
func chance(percent float64) []expr.Any {
	const parts = 1 << 16
	limit := binary.BigEndian.AppendUint32(nil, uint32(percent/100*parts))
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: parts, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: limit},
	}
}
