// Package config reads Remora's configuration file.
//
// The file is TOML and the same on every node. Reading it is strict and has three stages. The first builds a tree of
// keys and values that know their lines (tree.go). The second fills raw structs from it, by their tags, and reports keys
// that nobody knows and values of the wrong kind (decode.go, raw.go). The third checks what the values mean, alone and
// against one another, and yields a Config (parse.go, check_*.go). No stage stops at its first problem, so all problems
// of a file are reported together, in the order of their lines, each with the file, the line, the key, what is wrong and
// what to do. Only a file that is not TOML at all is left after the first error, because what follows it can not be
// trusted.
//
// Parse looks at the file alone. Whether the machine agrees (interfaces, keys, certificates, capabilities) is the matter
// of CheckHost, which sees the machine through the Host interface and only reads.
//
// Config is the outermost ring: it yields the configuration of each other package in that package's own words, and none
// of them imports it.
package config
