package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file, or with the machine that the file is for.
type Problem struct {
	File string
	// Line counts from 1; 0 means that no line is to blame.
	Line int
	// Key names the setting with its table, as in "[[node]] address"; it may be empty.
	Key string
	// Text says what is wrong and what to do.
	Text string
	// Warning marks a problem that does not keep the daemon from starting.
	Warning bool
}

// String returns the problem in one line, in the form "file:line: key: text".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is a list of problems. As an error it holds everything that was found, one problem on each line.
type Problems []Problem

// Error returns all problems, one on each line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Errors returns those problems that keep the daemon from starting.
func (ps Problems) Errors() Problems { return ps.filter(false) }

// Warnings returns those problems that do not keep the daemon from starting.
func (ps Problems) Warnings() Problems { return ps.filter(true) }

func (ps Problems) filter(warning bool) Problems {
	var out Problems
	for _, p := range ps {
		if p.Warning == warning {
			out = append(out, p)
		}
	}
	return out
}

// sorted returns the problems in the order of their lines, without repeats.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return slices.Compact(ps)
}

// report collects the problems of one file.
type report struct {
	file     string
	problems Problems
}

func (r *report) bad(at pos, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: at.line, Key: key, Text: fmt.Sprintf(format, args...)})
}

func (r *report) warn(at pos, key, format string, args ...any) {
	r.bad(at, key, format, args...)
	r.problems[len(r.problems)-1].Warning = true
}
