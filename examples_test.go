// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExamplesAreWhole: documentation shows an example with what it uses of its own file,
// but without what other files of tests declare, so it uses nothing of them.
func TestExamplesAreWhole(t *testing.T) {
	examples := 0
	require.NoError(t, filepath.WalkDir(".", func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if d.Name() == "examples" || d.Name() == "testdata" {
			return fs.SkipDir // programs of their own
		}
		paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		declared := make(map[string]string) // package and name, and the file
		var files []*ast.File
		for _, path := range paths {
			f, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				return err
			}
			for _, name := range namesOf(f) {
				declared[f.Name.Name+"."+name] = path
			}
			files = append(files, f)
		}
		for i, f := range files {
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Example") {
					continue
				}
				examples++
				for _, id := range f.Unresolved { // of this file
					if from, ok := declared[f.Name.Name+"."+id.Name]; ok && fn.Pos() <= id.Pos() && id.Pos() < fn.End() {
						require.Equal(t, paths[i], from, "%s uses %s", fn.Name, id.Name)
					}
				}
			}
		}
		return nil
	}))
	require.Greater(t, examples, 100)
}

// namesOf returns the names that a file declares.
func namesOf(f *ast.File) (names []string) {
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						names = append(names, id.Name)
					}
				}
			}
		}
	}
	return names
}
