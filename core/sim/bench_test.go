package sim

import "testing"

func BenchmarkSeed(b *testing.B) {
	w := new(world)
	for i := 0; b.Loop(); i++ {
		if r := w.run(Options{Seed: uint64(i%500) + 1}); r.Failure != nil {
			b.Fatal(r.Failure)
		}
	}
}
