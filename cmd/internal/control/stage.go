package control

import "context"

// Stage is a step that an operation has come to while it goes on.
type Stage struct {
	// Text says in a few words what is done now.
	Text string `json:"text"`
	// AtUS is the time since the operation was asked for, by the clock of the daemon that carries it out, in microseconds.
	AtUS int64 `json:"at_us"`
}

type stagesKey struct{}

// WithStages returns a context whose operations tell how far they are. tell is called from one goroutine at a time, and not after
// the operation has returned.
func WithStages(ctx context.Context, tell func(Stage)) context.Context {
	return context.WithValue(ctx, stagesKey{}, tell)
}

// StagesOf returns what wants to be told of an operation's stages, nil if nobody does.
func StagesOf(ctx context.Context) func(Stage) {
	tell, _ := ctx.Value(stagesKey{}).(func(Stage))
	return tell
}
