package core

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/remora-ha/remora"

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Standard   bool
}

// list asks the go command about packages of this module, among them those of the other operating system's files.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,Standard"}, args...)...)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %q: %v\n%s", args, err, stderr.String())
	}
	var ps []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return ps
		case err != nil:
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// inside reports whether a package is the one of this module at path, or below it.
func (p pkg) inside(path string) bool {
	return p.ImportPath == module+"/"+path || strings.HasPrefix(p.ImportPath, module+"/"+path+"/")
}

// The pure centre knows words and numbers. Package net is there for the type of a hardware address only, see
// TestCoreUsesNothingImpure.
func TestCoreImportsOnlyPurePackages(t *testing.T) {
	pure := []string{"bytes", "cmp", "encoding/hex", "encoding/json", "errors", "fmt", "hash/fnv", "iter", "maps", "math", "math/rand/v2", "net", "net/netip",
		"slices", "strconv", "strings", "time", module + "/core/gtid"}
	for _, p := range list(t, "./core", "./core/gtid") {
		for _, imported := range p.Imports {
			if !slices.Contains(pure, imported) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
	for _, dep := range list(t, "-deps", "./core") {
		if !dep.Standard && dep.ImportPath != module+"/core" && dep.ImportPath != module+"/core/gtid" {
			t.Errorf("core depends on %s", dep.ImportPath)
		}
	}
}

// allowed names what core may use of packages that can do more than it should.
var allowed = map[string][]string{
	"time": {"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"},
	"net":  {"HardwareAddr"},
	"rand": {"New", "NewPCG", "Rand"}, // its functions of package level have a seed of their own
}

func TestCoreUsesNothingImpure(t *testing.T) {
	for _, file := range sources(t, ".") {
		ast.Inspect(file.tree, func(n ast.Node) bool {
			at := file.set.Position(nodePos(n))
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine", at)
			case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				t.Errorf("%s: a channel", at)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Obj == nil {
					if names, limited := allowed[x.Name]; limited && !slices.Contains(names, n.Sel.Name) {
						t.Errorf("%s: core uses %s.%s", at, x.Name, n.Sel.Name)
					}
				}
			}
			return true
		})
	}
}

// Nothing that a package remembers by itself: what is remembered is in values that somebody owns.
func TestNoPackageLevelState(t *testing.T) {
	for _, dir := range []string{".", "agent", "gtid"} {
		for _, file := range sources(t, dir) {
			for _, d := range file.tree.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						if !strings.HasPrefix(name.Name, "Err") && name.Name != "_" {
							t.Errorf("%s: variable %s", file.set.Position(name.Pos()), name.Name)
						}
					}
				}
			}
		}
	}
}

type source struct {
	set  *token.FileSet
	tree *ast.File
}

// sources parses the files of a directory that go into the product.
func sources(t *testing.T, dir string) []source {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{set, tree})
	}
	if len(all) == 0 {
		t.Fatalf("no files in %s", dir)
	}
	return all
}

func nodePos(n ast.Node) token.Pos {
	if n == nil {
		return token.NoPos
	}
	return n.Pos()
}

// words are the packages of the centre that edges may know: its vocabulary, sets of transactions, and the kind of timer
// that loops wait for.
var words = []string{module + "/core", module + "/core/gtid", module + "/core/alarm"}

// The rule of the architecture: edges know core's words and themselves, nobody but cmd and bench knows more than one of them.
func TestArchitecture(t *testing.T) {
	edges := []string{"netio", "consensus", "detector"}
	for _, p := range list(t, "./...") {
		if p.inside("cmd") || p.inside("bench") {
			continue
		}
		home := strings.SplitN(strings.TrimPrefix(p.ImportPath, module+"/"), "/", 2)[0]
		if home != "core" && !slices.Contains(edges, home) {
			t.Errorf("package %s is neither core nor an edge: say in this test what it may import", p.ImportPath)
		}
		for _, imported := range p.Imports {
			own, ok := strings.CutPrefix(imported, module+"/")
			if !ok {
				continue
			}
			if other := strings.SplitN(own, "/", 2)[0]; other != home && !slices.Contains(words, imported) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func TestConfigIsTheOutermostRing(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.inside("cmd") {
			continue
		}
		if i := slices.IndexFunc(p.Imports, func(s string) bool { return strings.HasPrefix(s, module+"/cmd/") }); i >= 0 {
			t.Errorf("%s imports %s", p.ImportPath, p.Imports[i])
		}
	}
}

// The product runs no external program.
func TestNothingRunsPrograms(t *testing.T) {
	for _, p := range list(t, "./core/...", "./netio/...", "./consensus/...", "./detector/...", "./cmd/...") {
		if slices.Contains(p.Imports, "os/exec") {
			t.Errorf("%s imports os/exec", p.ImportPath)
		}
		for _, name := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range []string{"os.StartProcess(", "syscall.Exec(", "syscall.ForkExec(", "syscall.StartProcess(", "unix.Exec("} {
				if strings.Contains(string(b), call) {
					t.Errorf("%s/%s calls %s)", p.ImportPath, name, call)
				}
			}
		}
	}
}
