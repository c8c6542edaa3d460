//go:build race

package consensus

// With the race detector virtual time passes ten times as slowly.
const vDefaultSeeds = 12

var vSizes = []int{3}
