// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A nestedModule is a module in a folder of its own.
type nestedModule struct {
	dir      string
	requires map[string]string // versions by path
	replaces map[string]string // folders by path
	uses     []string          // the modules of others that its packages import, tests aside
	code     bool              // it has more than tests and doc.go
}

func nestedModules(t *testing.T) (all []nestedModule) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			return fs.SkipDir
		case d.Name() != "go.mod" || path == "go.mod":
			return nil
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		m := nestedModule{dir: filepath.Dir(path), requires: make(map[string]string), replaces: make(map[string]string)}
		for _, r := range regexp.MustCompile(`(?m)^(?:require )?\t?(\S+) (v\S+)(?: // indirect)?$`).FindAllStringSubmatch(string(text), -1) {
			m.requires[r[1]] = r[2]
		}
		for _, r := range regexp.MustCompile(`(?m)^(?:replace )?\t?(\S+) => (\S+)$`).FindAllStringSubmatch(string(text), -1) {
			m.replaces[r[1]] = r[2]
		}
		m.imports(t)
		all = append(all, m)
		return nil
	}))
	require.Greater(t, len(all), 15)
	return all
}

// imports sets code and uses, by what is in the folder itself.
func (m *nestedModule) imports(t *testing.T) {
	files, err := filepath.Glob(m.dir + "/*.go")
	require.NoError(t, err)
	seen := make(map[string]bool)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "doc.go" {
			continue
		}
		m.code = true
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			for path := range m.requires {
				if strings.HasPrefix(imported+"/", path+"/") && !strings.HasPrefix(path, module) && !strings.HasPrefix(path, "golang.org/x/") && !seen[path] {
					seen[path] = true
					m.uses = append(m.uses, path)
				}
			}
		}
	}
}

// TestNestedModulesCanBeReleased: a program reads the replace lines of its own go.mod only,
// so that the versions which a nested module requires of ours have to be real ones, and the
// same everywhere, README.md included, as all are released together. In the repository
// they are replaced.
func TestNestedModulesCanBeReleased(t *testing.T) {
	version := ""
	for _, m := range nestedModules(t) {
		require.Contains(t, m.requires, module, m.dir)
		for path, v := range m.requires {
			if path != module && !strings.HasPrefix(path, module+"/") {
				continue
			}
			require.Regexp(t, `^v[0-9]+\.[1-9][0-9]*\.[0-9]+$|^v[1-9][0-9]*\.[0-9]+\.[0-9]+$`, v, "%s requires %s", m.dir, path)
			if version == "" {
				version = v
			}
			require.Equal(t, version, v, "%s requires %s", m.dir, path)
			require.Contains(t, m.replaces, path, m.dir)
			require.Equal(t, filepath.Join(".", strings.TrimPrefix(path, module)), filepath.Join(m.dir, m.replaces[path]), "%s replaces %s", m.dir, path)
		}
	}
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	named := regexp.MustCompile(`penstock-lb/penstock\S*@(v[0-9.]+[0-9])`).FindAllStringSubmatch(string(readme), -1)
	require.Greater(t, len(named), 2)
	for _, n := range named {
		require.Equal(t, version, n[1], n[0])
	}
}

// TestNestedModulesNameWhatTheyBring reads doc.go of each module that programs import.
func TestNestedModulesNameWhatTheyBring(t *testing.T) {
	found := 0
	for _, m := range nestedModules(t) {
		if !m.code || strings.HasPrefix(m.dir, "examples") {
			continue
		}
		found++
		file, err := parser.ParseFile(token.NewFileSet(), m.dir+"/doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
		require.NoError(t, err)
		doc := strings.Join(strings.Fields(file.Doc.Text()), " ")
		_, brings, ok := strings.Cut(doc, "It is a module of its own. Besides penstock it brings ")
		require.True(t, ok, "%s/doc.go does not say what the module brings besides penstock", m.dir)
		require.NotEmpty(t, m.uses, m.dir)
		for _, path := range m.uses {
			require.Regexp(t, regexp.QuoteMeta(path)+`\b`, brings, m.dir)
		}
	}
	require.Greater(t, found, 10)
}
