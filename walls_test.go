// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A wing is a line of the table in doc.go: patterns of the files that are in it.
type wing struct {
	name  string
	files []string
}

// wingsOf reads the table of wings, the lowest first.
func wingsOf(t *testing.T, doc string) (wings []wing) {
	_, table, ok := strings.Cut(doc, "\n// The wings")
	require.True(t, ok, "doc.go has no table of wings")
	head := regexp.MustCompile(`^// ([a-z]+): .`)
	for line := range strings.Lines(table) {
		if m := head.FindStringSubmatch(line); m != nil {
			wings = append(wings, wing{name: m[1]})
		} else if files, ok := strings.CutPrefix(line, "//\t"); ok && len(wings) > 0 {
			w := &wings[len(wings)-1]
			w.files = append(w.files, strings.Fields(files)...)
		}
	}
	return wings
}

// wingOf returns the number of the wing that a file is in: core, the lowest, if
// no other has a pattern for it.
func wingOf(wings []wing, file string) (at int, err error) {
	for i, w := range wings {
		for _, pattern := range w.files {
			switch ok, err := filepath.Match(pattern+".go", file); {
			case err != nil:
				return 0, err
			case ok && at > 0:
				return 0, fmt.Errorf("%s is in two wings, %s and %s", file, wings[at].name, w.name)
			case ok:
				at = i
			}
		}
	}
	return at, nil
}

// A use is an identifier of the package that one of its files uses, and another
// one declares.
type use struct{ name, from, to string }

// listed is what the go command tells of a package.
type listed struct {
	ImportPath, Export string
	GoFiles            []string
}

// export returns the files of the package in dir, and where the compiler has put what
// it exports, and what its imports do.
func export(t *testing.T, dir string) (self listed, exports map[string]string) {
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles", "./"+dir).Output()
	require.NoError(t, err)
	exports = make(map[string]string)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return self, exports
		} else {
			require.NoError(t, err)
		}
		exports[p.ImportPath], self = p.Export, p // the package itself comes last
	}
}

// usesOf returns the uses between the files of the package, and where they look
// behind a seam. Instead holds other text for files by name.
func usesOf(t *testing.T, dir string, self listed, exports map[string]string, instead map[string]string) (uses []use, peeps []string) {
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range self.GoFiles {
		var src any
		if text, ok := instead[name]; ok {
			src = text
		}
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), src, parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, f)
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)}
	pkg, err := conf.Check(self.ImportPath, fset, files, info)
	require.NoError(t, err)
	file := func(p token.Pos) string { return filepath.Base(fset.Position(p).Filename) }
	seen := make(map[use]bool)
	for id, o := range info.Uses {
		if o.Pkg() != pkg {
			continue
		}
		if u := (use{o.Name(), file(id.Pos()), file(o.Pos())}); u.from != u.to {
			seen[u] = true
		}
	}
	for u := range seen {
		uses = append(uses, u)
	}
	slices.SortFunc(uses, func(a, b use) int { return strings.Compare(a.from+a.to+a.name, b.from+b.to+b.name) })
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if a, ok := n.(*ast.TypeAssertExpr); ok && seams[strings.TrimPrefix(info.TypeOf(a.X).String(), self.ImportPath+".")] {
				peeps = append(peeps, fset.Position(a.Pos()).String())
			}
			return true
		})
	}
	return uses, peeps
}

// seams are the interfaces of l7 whose values are not asserted to be anything else: what
// is asked of an implementation is a method.
var seams = map[string]bool{
	"downstream": true, "requestBody": true, "replyWriter": true, "directWriter": true, "client": true,
	"source": true, "requestSender": true, "replyReader": true, "serverConn": true, "serverTunnel": true,
	"interrupter": true, "bodySink": true,
}

// upward returns what is wrong with uses: those from a wing to one above it,
// and files that are in two wings.
func upward(wings []wing, files []string, uses []use) (faults []string) {
	at := make(map[string]int)
	for _, f := range files {
		i, err := wingOf(wings, f)
		if err != nil {
			faults = append(faults, err.Error())
		}
		at[f] = i
	}
	if faults != nil {
		return faults
	}
	for _, u := range uses {
		if from, to := at[u.from], at[u.to]; from < to {
			faults = append(faults, fmt.Sprintf("%s (%s) uses %s of %s (%s), which is above it", u.from, wings[from].name, u.name, u.to, wings[to].name))
		}
	}
	return faults
}

// TestWings keeps the uses between the files of a package pointing down, as the table
// in its doc.go has its wings.
func TestWings(t *testing.T) {
	docs, err := filepath.Glob("*/doc.go")
	require.NoError(t, err)
	tables := 0
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		require.NoError(t, err)
		if !strings.Contains(string(text), "\n// The wings") {
			continue
		}
		tables++
		dir := filepath.Dir(doc)
		t.Run(dir, func(t *testing.T) {
			wings := wingsOf(t, string(text))
			self, exports := export(t, dir)
			uses, _ := usesOf(t, dir, self, exports, nil)
			require.Greater(t, len(uses), 100)
			for _, fault := range upward(wings, self.GoFiles, uses) {
				t.Error(fault)
			}
			for _, w := range wings {
				for _, pattern := range w.files {
					names, err := filepath.Glob(filepath.Join(dir, pattern+".go"))
					require.NoError(t, err)
					require.NotEmpty(t, names, "wing %s: there is no %s.go", w.name, pattern)
				}
			}
		})
	}
	require.Equal(t, 5, tables)
}

// TestSeams keeps the seams of l7 closed, and shows that this and TestWings would see
// what they look for.
func TestSeams(t *testing.T) {
	const dir, core = "l7", "stack.go"
	doc, err := os.ReadFile(filepath.Join(dir, "doc.go"))
	require.NoError(t, err)
	src, err := os.ReadFile(filepath.Join(dir, core))
	require.NoError(t, err)
	wings := wingsOf(t, string(doc))
	self, exports := export(t, dir)
	_, peeps := usesOf(t, dir, self, exports, nil)
	require.Empty(t, peeps, "type assertions on a seam: make what they ask for a method")

	t.Run("arrow turned", func(t *testing.T) {
		uses, _ := usesOf(t, dir, self, exports, map[string]string{core: string(src) + "\nvar _ = (*Transport).RoundTrip\n"})
		faults := upward(wings, self.GoFiles, uses)
		require.Len(t, faults, 2) // the type and its method
		for _, f := range faults {
			require.Contains(t, f, core)
			require.Contains(t, f, "which is above it")
		}
		require.Contains(t, strings.Join(faults, "\n"), "RoundTrip")
	})
	t.Run("look behind a seam", func(t *testing.T) {
		_, peeps := usesOf(t, dir, self, exports, map[string]string{core: string(src) + `
func behind(d downstream, s source) {
	_, _ = d.(interface{ x() })
	switch s.(type) {
	}
}`})
		require.Len(t, peeps, 2)
		require.Contains(t, peeps[0], core)
	})
	t.Run("file in two wings", func(t *testing.T) {
		both := append(slices.Clone(wings), wing{name: "roof", files: []string{"up_*"}})
		require.Contains(t, strings.Join(upward(both, self.GoFiles, nil), "\n"), "up_proxy.go is in two wings, upstream and roof")
	})
}
