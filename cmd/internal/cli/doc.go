// Package cli is the command line of remora: it reads flags, calls what does the work, prints, and turns errors into exit
// codes. It holds no logic of its own.
package cli
