package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the messages that come out into the golden files")

// TestMessages holds every message that a mistake in a file gets. The wanted lines stand in the .want file beside it.
func TestMessages(t *testing.T) {
	for _, dir := range []string{"bad", "warn"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no cases in %s: %v", dir, err)
		}
		for _, file := range files {
			t.Run(dir+"/"+strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
				checkMessages(t, file, dir == "bad")
			})
		}
	}
}

func checkMessages(t *testing.T, file string, bad bool) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cfg, err := Parse(f, filepath.Base(file))
	var got Problems
	if bad {
		if !errors.As(err, &got) || len(got.Errors()) == 0 {
			t.Fatalf("the file was accepted: %v", err)
		}
	} else {
		if err != nil {
			t.Fatalf("the file was refused: %v", err)
		}
		got = cfg.Warnings
	}
	golden := strings.TrimSuffix(file, ".toml") + ".want"
	text := got.Error() + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	for i := range got {
		if i > 0 && got[i].Line < got[i-1].Line {
			t.Errorf("line %d is reported after line %d", got[i].Line, got[i-1].Line)
		}
	}
}
