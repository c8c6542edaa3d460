package detector

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
)

// procEvent builds a datagram of the process connector.
func procEvent(what, pid, tgid, status uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, exitEventSize+12)
	ne.PutUint32(b[netlinkHeader:], cnIndexProc)
	ne.PutUint32(b[netlinkHeader+4:], cnValueProc)
	ne.PutUint32(b[offsetWhat:], what)
	ne.PutUint32(b[offsetPID:], pid)
	ne.PutUint32(b[offsetTGID:], tgid)
	ne.PutUint32(b[offsetCode:], status)
	return b
}

func TestParseExit(t *testing.T) {
	if e, ok := parseExit(procEvent(procExit, 8, 7, 9)); !ok || e != (exitEvent{tid: 8, pid: 7, status: 9}) || signalOf(e.status) != 9 {
		t.Errorf("got %+v, %v", e, ok)
	}
	if signalOf(0x0100) != 0 || signalOf(0x86) != 6 {
		t.Error("exit status 1 has no signal, an abort with a core dump has 6")
	}
	for _, bad := range [][]byte{nil, procEvent(1, 8, 7, 9), procEvent(procNone, 0, 0, 0), procEvent(procExit, 8, 7, 9)[:exitEventSize-1]} {
		if e, ok := parseExit(bad); ok {
			t.Errorf("%x: read as %+v", bad, e)
		}
	}
	if errno, ok := parseAck(procEvent(procNone, 1, 0, 0)); !ok || errno != 1 {
		t.Errorf("acknowledgement: %d, %v", errno, ok)
	}
}

func FuzzParseExit(f *testing.F) {
	f.Add(procEvent(procExit, 8, 7, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := parseExit(b); ok && len(b) < exitEventSize {
			t.Error("read beyond the end")
		}
		parseAck(b)
	})
}

func TestTheFilterPassesOnlyExitsOfTheProcess(t *testing.T) {
	raw, err := exitFilter(7)
	if err != nil {
		t.Fatal(err)
	}
	var prog []bpf.Instruction
	for _, r := range raw {
		prog = append(prog, r.Disassemble())
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		b    []byte
		pass bool
	}{
		{procEvent(procExit, 8, 7, 9), true},
		{procEvent(procExit, 7, 7, 0), true},
		{procEvent(procExit, 7, 8, 9), false},
		{procEvent(1, 8, 7, 9), false},
		{nil, false},
	}
	for _, test := range tests {
		if n, err := vm.Run(test.b); err != nil || (n > 0) != test.pass {
			t.Errorf("%x: %d bytes pass, %v; want pass %v", test.b, n, err, test.pass)
		}
	}
}
