// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryPolicyIsInTheTables has a policy that is new put into the tests that are meant for all
// of them.
func TestEveryPolicyIsInTheTables(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "Picker" || fn.Recv == nil {
				continue
			}
			if name, ok := fn.Recv.List[0].Type.(*ast.Ident); ok && name.IsExported() && name.Name != "PolicyFunc" {
				names = append(names, name.Name)
			}
		}
	}
	require.Greater(t, len(names), 8)
	for _, table := range []string{"chaos_test.go", "balancetest/balancetest_test.go"} {
		text, err := os.ReadFile(table)
		require.NoError(t, err)
		for _, name := range names {
			require.True(t, regexp.MustCompile(`\b`+name+`\{`).Match(text), "%s is not in %s", name, table)
		}
	}
}
