// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each step that doc_way.go names is a function of the file that it says.
func TestWayOfARequest(t *testing.T) {
	src, err := os.ReadFile("doc_way.go")
	require.NoError(t, err)
	steps := regexp.MustCompile(`(?m)^//\t(\w+\.go) +([\w.]+) `).FindAllStringSubmatch(string(src), -1)
	require.Greater(t, len(steps), 20)
	for _, s := range steps {
		f, err := parser.ParseFile(token.NewFileSet(), s[1], nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		found := false
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok {
				name := d.Name.Name
				if d.Recv != nil {
					recv := d.Recv.List[0].Type
					if p, ok := recv.(*ast.StarExpr); ok {
						recv = p.X
					}
					name = types.ExprString(recv) + "." + name
				}
				found = found || name == s[2]
			}
		}
		require.True(t, found, "%s has no %s", s[1], s[2])
	}
}

// The list of types in the package comment is complete.
func TestTypesAreListed(t *testing.T) {
	doc, err := os.ReadFile("doc_types.go")
	require.NoError(t, err)
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	types := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok || d.Tok != token.TYPE {
				continue
			}
			for _, s := range d.Specs {
				if name := s.(*ast.TypeSpec).Name.Name; ast.IsExported(name) {
					types++
					require.Contains(t, string(doc), "["+name+"]")
				}
			}
		}
	}
	require.Greater(t, types, 80)
}
