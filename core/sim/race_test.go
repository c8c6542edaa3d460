//go:build race

package sim

// With the race detector a seed takes ten times as long, and a world has one goroutine: a few seeds are for Search.
const (
	raceDetector = true
	defaultSeeds = 300
)
