package realtime

import (
	"math"
	"runtime/metrics"
	"time"
)

// pauses is the runtime's histogram of the times for which a garbage collection has stopped the program.
const pauses = "/sched/pauses/total/gc:seconds"

// WorstPause returns an upper bound of the longest time for which a garbage collection has stopped this process since its
// start: the upper edge of the last bucket of the runtime's histogram that is not empty; and how many such stops there were.
func WorstPause() (worst time.Duration, count uint64) {
	s := []metrics.Sample{{Name: pauses}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0, 0 // a runtime without this metric
	}
	h := s[0].Value.Float64Histogram()
	for i, n := range h.Counts {
		if n == 0 {
			continue
		}
		count += n
		edge := h.Buckets[i+1]
		if math.IsInf(edge, 1) {
			edge = h.Buckets[i]
		}
		worst = time.Duration(edge * float64(time.Second))
	}
	return worst, count
}
