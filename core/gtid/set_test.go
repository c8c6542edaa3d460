package gtid

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

const (
	uuidA = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
	uuidB = "a0000000-0000-0000-0000-00000000000b"
)

func parse(t testing.TB, f Flavour, text string) Set {
	t.Helper()
	s, err := Parse(f, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASetIsPrintedAsTheServerPrintsIt(t *testing.T) {
	for _, c := range []struct {
		f         Flavour
		in, want  string
		wantCount uint64
	}{
		{MySQL, "", "", 0},
		{MySQL, " " + uuidA + ":1-5:7,\n" + uuidB + ":1", uuidA + ":1-5:7," + uuidB + ":1", 7},
		{MySQL, strings.ToUpper(uuidA) + ":7:1-3:2-6", uuidA + ":1-7", 7},
		{MySQL, uuidA + ":1-2:Audit:1-3:9:b_1:4", uuidA + ":1-2:audit:1-3:9:b_1:4", 7},
		{MySQL, uuidA + ":audit:1," + uuidA + ":audit:2", uuidA + ":audit:1-2", 2},
		{MySQL, uuidA + ":1-9223372036854775806", uuidA + ":1-9223372036854775806", maxSequence},
		{MariaDB, "", "", 0},
		{MariaDB, "1-2-3,0-1-42", "0-1-42,1-2-3", 45},
		{MariaDB, "0-1-42,0-2-40", "0-1-42", 42},
		{MariaDB, "0-2-42,0-1-42", "0-1-42,0-2-42", 42},
		{MariaDB, "0-1-0", "", 0},
		{MariaDB, "0-1-18446744073709551615,1-1-1", "0-1-18446744073709551615,1-1-1", math.MaxUint64},
	} {
		s := parse(t, c.f, c.in)
		if s.String() != c.want || s.Count() != c.wantCount {
			t.Errorf("%q: %q with %d, want %q with %d", c.in, s, s.Count(), c.want, c.wantCount)
		}
	}
}

func TestWhatIsNoSetIsRefused(t *testing.T) {
	for _, c := range []struct {
		f        Flavour
		in, says string
	}{
		{MySQL, uuidA, "no interval"},
		{MySQL, uuidA + ":", "not a number"},
		{MySQL, uuidA + ":tag", "no interval"},
		{MySQL, uuidA + ":one:two:1", "no interval"},
		{MySQL, uuidA + ":1:two", "no interval"},
		{MySQL, uuidA + ":0", "out of range"},
		{MySQL, uuidA + ":5-3", "ends before"},
		{MySQL, uuidA + ":1-9223372036854775807", "out of range"},
		{MySQL, uuidA + ":+1", "not a number"},
		{MySQL, uuidA[:35] + ":1", "not a UUID"},
		{MySQL, "3e11fa47-71ca-11e1-9e33-c80aa94295-2:1", "not a UUID"},
		{MySQL, uuidA + ":" + strings.Repeat("t", 33) + ":1", "not a number"},
		{MySQL, "0-1-42", "not a UUID"},
		{MariaDB, uuidA + ":1", "not domain-server-sequence"},
		{MariaDB, "0-1", "not domain-server-sequence"},
		{MariaDB, "0-1-", "not a number"},
		{MariaDB, "4294967296-1-1", "out of range"},
		{MariaDB, "0-4294967296-1", "out of range"},
		{0, "", "flavour"},
	} {
		if _, err := Parse(c.f, c.in); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v %q: %v, want an error that says %q", c.f, c.in, err, c.says)
		}
	}
}

func TestTwoSetsCompare(t *testing.T) {
	for _, c := range []struct {
		f       Flavour
		a, b    string
		want    Relation
		missing uint64 // on b
	}{
		{MySQL, uuidA + ":1-5", uuidA + ":1-5", Equal, 0},
		{MySQL, uuidA + ":1-5", uuidA + ":1-3", Ahead, 2},
		{MySQL, uuidA + ":1-5", uuidA + ":1-3:5", Ahead, 1},
		{MySQL, "", uuidA + ":1", Behind, 0},
		{MySQL, uuidA + ":1-5", uuidA + ":1-4," + uuidB + ":1", Incomparable, 1},
		{MySQL, uuidA + ":t:1", uuidA + ":1", Incomparable, 1},
		{MariaDB, "0-1-5", "0-1-5", Equal, 0},
		{MariaDB, "0-2-7", "0-1-5", Ahead, 2},
		{MariaDB, "0-1-5", "0-1-5,1-1-1", Behind, 0},
		{MariaDB, "0-1-5,1-1-2", "0-1-6,1-1-1", Incomparable, 1},
		{MariaDB, "0-1-5", "0-2-5", Incomparable, 1}, // a fork
		{MariaDB, "0-1-5,0-2-5", "0-2-5", Ahead, 1},
	} {
		a, b := parse(t, c.f, c.a), parse(t, c.f, c.b)
		if got := Compare(a, b); got != c.want {
			t.Errorf("%q is %v to %q, want %v", c.a, got, c.b, c.want)
		}
		if got := a.Subtract(b).Count(); got != c.missing {
			t.Errorf("%q lacks %d of %q, want %d", c.b, got, c.a, c.missing)
		}
	}
}

// random returns a small set, and for MySQL also its members one by one.
func random(r *rand.Rand, f Flavour) (Set, map[string]bool) {
	var parts []string
	members := map[string]bool{}
	for range r.IntN(8) {
		if f == MariaDB {
			parts = append(parts, fmt.Sprintf("%d-%d-%d", r.IntN(3), 1+r.IntN(2), 1+r.IntN(6)))
			continue
		}
		tag, first, n := []string{"", "t:", "u:"}[r.IntN(3)], 1+r.IntN(12), r.IntN(5)
		u := []string{uuidA, uuidB}[r.IntN(2)]
		for i := first; i <= first+n; i++ {
			members[fmt.Sprint(u, tag, i)] = true
		}
		parts = append(parts, fmt.Sprintf("%s:%s%d-%d", u, tag, first, first+n))
	}
	s, err := Parse(f, strings.Join(parts, ","))
	if err != nil {
		panic(err)
	}
	return s, members
}

// The dumb twin: the same algebra on the members one by one.
func TestMySQLSetsAgreeWithTheirMembers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		a, ma := random(r, MySQL)
		b, mb := random(r, MySQL)
		var minus, union uint64
		union = uint64(len(mb))
		for m := range ma {
			if !mb[m] {
				minus++
				union++
			}
		}
		if a.Count() != uint64(len(ma)) || a.Subtract(b).Count() != minus || a.Union(b).Count() != union || b.Contains(a) != (minus == 0) {
			t.Fatalf("%q and %q: counts %d, %d, %d; want %d, %d, %d", a, b, a.Count(), a.Subtract(b).Count(), a.Union(b).Count(),
				len(ma), minus, union)
		}
	}
}

func TestLawsOfSets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, f := range []Flavour{MySQL, MariaDB} {
		for range 20000 {
			a, _ := random(r, f)
			b, _ := random(r, f)
			c, _ := random(r, f)
			u := a.Union(b)
			if u.String() != b.Union(a).String() || u.Union(c).String() != a.Union(b.Union(c)).String() {
				t.Fatalf("%v: union of %q, %q and %q depends on the order", f, a, b, c)
			}
			if !u.Contains(a) || !u.Contains(b) || !a.Contains(Set{}) || !a.Contains(a) {
				t.Fatalf("%v: %q, %q: a union lacks a part", f, a, b)
			}
			if !a.Contains(a.Subtract(b)) && f == MySQL {
				t.Fatalf("%v: %q has not what is left of it without %q", f, a, b)
			}
			if !b.Union(a.Subtract(b)).Contains(a) {
				t.Fatalf("%v: %q and its difference to %q lack a part of it", f, b, a)
			}
			if a.Contains(b) && b.Contains(c) && !a.Contains(c) {
				t.Fatalf("%v: containing is not transitive: %q, %q, %q", f, a, b, c)
			}
			if (Compare(a, b) == Equal) != (a.String() == b.String()) {
				t.Fatalf("%v: %q and %q are %v", f, a, b, Compare(a, b))
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", uuidA + ":1-5:7", uuidA + ":1-2:audit:1-3:b:4," + uuidB + ":9", "0-1-42,1-2-3", "0-1-5,0-2-5",
		uuidA + ":1-9223372036854775806", "0-1-18446744073709551615", ",,", uuidA + ":t"} {
		f.Add(true, s)
		f.Add(false, s)
	}
	f.Fuzz(func(t *testing.T, mysql bool, text string) {
		flavour := MariaDB
		if mysql {
			flavour = MySQL
		}
		s, err := Parse(flavour, text)
		if err != nil {
			return
		}
		again, err := Parse(flavour, s.String())
		if err != nil || Compare(s, again) != Equal || again.String() != s.String() || s.Empty() != (s.Count() == 0) {
			t.Fatalf("%q is printed as %q, which reads as %q: %v", text, s, again, err)
		}
	})
}
