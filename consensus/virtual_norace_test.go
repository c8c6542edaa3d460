//go:build !race

package consensus

// vDefaultSeeds is how many seeds TestVirtualSeeds plays.
const vDefaultSeeds = 200

// vSizes are the sizes of the clusters in which the scenarios are played.
var vSizes = []int{3, 5}
