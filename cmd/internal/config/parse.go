package config

import (
	"fmt"
	"io"
	"os"
)

// maxSize bounds what is read, in bytes: no honest file comes near it.
const maxSize = 256 << 10

// Load reads and checks a file. The error is a Problems list that holds everything that is wrong with it.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Problems{{File: path, Text: fmt.Sprintf(
			"can not be read (%v): name the configuration with --config, or write one with 'remora config example'", cause(err))}}
	}
	defer f.Close()
	return Parse(f, path)
}

// Parse reads and checks a configuration and looks at nothing else. The file's name is for messages. The error is a
// Problems list that holds everything that is wrong; warnings are part of it only when there is an error too.
func Parse(r io.Reader, filename string) (*Config, error) {
	rep := &report{file: filename}
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	switch {
	case err != nil:
		rep.bad(pos{}, "", "can not be read: %v", cause(err))
		return nil, rep.problems
	case len(data) > maxSize:
		rep.bad(pos{}, "", "is larger than %d bytes: this is no configuration file", maxSize)
		return nil, rep.problems
	}
	root := parseTree(data, rep)
	if root == nil {
		return nil, rep.problems.sorted()
	}
	cfg := check(decode(root, rep), rep)
	problems := rep.problems.sorted()
	if len(problems.Errors()) > 0 {
		return nil, problems
	}
	cfg.Warnings = problems
	return cfg, nil
}
