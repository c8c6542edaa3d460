package config

import _ "embed"

//go:embed example.toml
var example string

// Example returns a complete file that names and explains every key.
func Example() string { return example }
