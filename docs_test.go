// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSecurityNamesTheDefaults compares the table of SECURITY.md with the comments
// of the fields that it names.
func TestSecurityNamesTheDefaults(t *testing.T) {
	text, err := os.ReadFile(".github/SECURITY.md")
	require.NoError(t, err)
	squeeze := strings.NewReplacer(" ", "", "l4.DefaultMaxConns", "65536", "DefaultMaxConns", "65536").Replace
	code, rows := regexp.MustCompile("`([^`]+)`"), 0
	for _, row := range regexp.MustCompile("(?m)^\\|([^|]+)\\|([^|]+`[^|]+)\\|([^|]+)\\|$").FindAllStringSubmatch(string(text), -1) {
		var fields []string
		holder := ""
		for _, f := range code.FindAllStringSubmatch(row[2], -1) {
			name := f[1]
			if i := strings.LastIndexByte(name, '.'); i < 0 {
				name = holder + "." + name
			} else {
				holder = name[:i]
			}
			fields = append(fields, name)
		}
		says := strings.Split(row[3], ",")
		if len(says) == 1 {
			says = strings.Split(strings.Repeat(row[3]+",", len(fields)), ",")[:len(fields)]
		}
		require.Len(t, says, len(fields), row[0])
		for i, name := range fields {
			rows++
			if strings.Count(name, ".") < 2 { // a type: that it exists is enough
				require.True(t, typeExists(t, name), name)
				continue
			}
			want, comment := strings.TrimSpace(says[i]), fieldComment(t, name)
			if want == "no limit: it is streamed" {
				require.Contains(t, comment, "0 or negative means no limit", name)
				continue
			}
			require.Contains(t, squeeze(comment), squeeze("0 means "+want), name)
		}
	}
	require.Greater(t, rows, 15)
}

// fieldComment returns the comments of a field, which is given as package.Type.Field.
func fieldComment(t *testing.T, name string) (comment string) {
	part := strings.Split(name, ".")
	eachType(t, part[0], func(spec *ast.TypeSpec) {
		st, ok := spec.Type.(*ast.StructType)
		if !ok || spec.Name.Name != part[1] {
			return
		}
		for _, f := range st.Fields.List {
			for _, id := range f.Names {
				if id.Name == part[2] {
					comment = f.Doc.Text() + f.Comment.Text()
				}
			}
		}
	})
	require.NotEmpty(t, comment, name)
	return comment
}

func typeExists(t *testing.T, name string) (found bool) {
	pkg, name, _ := strings.Cut(name, ".")
	eachType(t, pkg, func(spec *ast.TypeSpec) { found = found || spec.Name.Name == name })
	return found
}

// packages has what parsed has read.
var packages = make(map[string][]*ast.File)

// parsed returns the files of a package, its tests aside.
func parsed(t *testing.T, pkg string) []*ast.File {
	if packages[pkg] != nil {
		return packages[pkg]
	}
	entries, err := os.ReadDir(pkg)
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), pkg+"/"+e.Name(), nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		packages[pkg] = append(packages[pkg], file)
	}
	return packages[pkg]
}

func eachType(t *testing.T, pkg string, do func(*ast.TypeSpec)) {
	for _, file := range parsed(t, pkg) {
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				for _, spec := range g.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok {
						do(ts)
					}
				}
			}
		}
	}
}

// TestIndexOfExamples follows each link of the index, to the func too.
func TestIndexOfExamples(t *testing.T) {
	text, err := os.ReadFile("examples/README.md")
	require.NoError(t, err)
	links := regexp.MustCompile("\\[(`?)([^\\]`]+)`?\\]\\(([^)]+)\\)").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(links), 50)
	for _, link := range links {
		name, path := link[2], "examples/"+link[3]
		if link[1] == "" {
			_, err := os.Stat(path)
			require.NoError(t, err, name)
			continue
		}
		code, err := os.ReadFile(path)
		require.NoError(t, err, name)
		pkg, example, _ := strings.Cut(name, ".")
		require.Contains(t, string(code), "func "+example+"() {", name)
		require.Regexp(t, "(?m)^package "+pkg+"(_test)?$", string(code), name)
	}
	folders, err := os.ReadDir("examples")
	require.NoError(t, err)
	for _, f := range folders {
		if f.IsDir() {
			require.Contains(t, string(text), "("+f.Name(), "a program that the index does not name: "+f.Name())
		}
	}
	declared := make(map[string]map[string]bool) // by package
	for _, name := range regexp.MustCompile("`((?:balance|health|ratelimit|l4|l7)\\.[A-Z][A-Za-z0-9]*)").FindAllStringSubmatch(string(text), -1) {
		pkg, id, _ := strings.Cut(name[1], ".")
		if declared[pkg] == nil {
			declared[pkg] = declaredIn(t, pkg)
		}
		require.True(t, declared[pkg][id] || strings.HasPrefix(id, "Example"), name[1])
	}
}

// TestExamplesAreWrittenFromOutside keeps examples in files of package x_test. Readers see
// an example as it is written: in package x it has no x. before a name and does not compile
// in their program.
func TestExamplesAreWrittenFromOutside(t *testing.T) {
	example, outside := regexp.MustCompile(`(?m)^func Example`), regexp.MustCompile(`(?m)^package \w+_test$`)
	seen := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && example.Match(text) {
			seen++
			require.Regexp(t, outside, string(text), path)
		}
		return err
	}))
	require.Greater(t, seen, 40)
}

// declaredIn returns the names of the types, funcs and constants of a package of the root
// module, and some that are none.
func declaredIn(t *testing.T, pkg string) map[string]bool {
	entries, err := os.ReadDir(pkg)
	require.NoError(t, err)
	names := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^(?:type|func|const|var|\t)\s*(\w+)`)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go") {
			code, err := os.ReadFile(pkg + "/" + e.Name())
			require.NoError(t, err)
			for _, found := range declared.FindAllSubmatch(code, -1) {
				names[string(found[1])] = true
			}
		}
	}
	return names
}

// TestReadmeCompiles builds each block of Go in README.md. One that is no program is the
// body of a func, with what it takes for granted before it.
func TestReadmeCompiles(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	given := map[string]string{ // by how the block begins
		"db := ":   "var static *balance.Pool\n@\n_, _, _ = tcp, www, err",
		"page := ": "var web *balance.Pool; var gateway *l7.Server; var checker *health.Checker\n@",
	}
	names := map[string]string{"netip": "net/netip", "http": "net/http", "admin": "github.com/penstock-lb/penstock/l7/admin"}
	for _, name := range []string{"balance", "health", "ratelimit", "l4", "l7"} {
		names[name] = "github.com/penstock-lb/penstock/" + name
	}
	dir := t.TempDir()
	var files []string
	excerpts := 0
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		code := block[1]
		if strings.HasPrefix(code, "for minute := range") { // a part of a test that runs
			day, err := os.ReadFile("examples/apigateway/day_test.go")
			require.NoError(t, err)
			require.Contains(t, strings.ReplaceAll(string(day), "\n\t\t", "\n"), code)
			excerpts++
			continue
		}
		if !strings.HasPrefix(code, "package ") {
			frame := ""
			for begins, f := range given {
				if strings.HasPrefix(code, begins) {
					frame = f
				}
			}
			require.NotEmpty(t, frame, "say what this block takes for granted:\n"+code)
			body := strings.ReplaceAll(frame, "@", code)
			imports := ""
			for name, path := range names {
				if regexp.MustCompile(`\b` + name + `\.`).MatchString(body) {
					imports += "import " + strconv.Quote(path) + "\n"
				}
			}
			code = "package main\n" + imports + "func main() {\n" + body + "\n}\n"
		}
		file := filepath.Join(dir, strconv.Itoa(len(files))+".go")
		require.NoError(t, os.WriteFile(file, []byte(code), 0o600))
		files = append(files, file)
	}
	require.Len(t, files, 3)
	require.Equal(t, 1, excerpts)
	for _, file := range files {
		out, err := exec.Command("go", "vet", file).CombinedOutput()
		require.NoError(t, err, string(out))
	}
}

// TestLicencesAreListed looks at what each go.mod asks for.
func TestLicencesAreListed(t *testing.T) {
	text, err := os.ReadFile(".github/LICENSES.md")
	require.NoError(t, err)
	var known []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [A-Z]").FindAllStringSubmatch(string(text), -1) {
		known = append(known, row[1])
	}
	mods := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "go.mod" {
			return err
		}
		mods++
		code, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^(?:require )?\t?([a-z0-9.-]+\.[a-z]+/\S+) v\S+$`).FindAllStringSubmatch(string(code), -1) {
			if !strings.HasPrefix(m[1], module) && !slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(m[1]+"/", k) }) {
				t.Errorf("%s asks for %s, which .github/LICENSES.md does not name", path, m[1])
			}
		}
		return nil
	}))
	require.Greater(t, mods, 15)
}

// TestReadmeShowsTheBenchmark compares the table of README.md with that of the recorded
// run, which a test of examples/bench compares with its record.
func TestReadmeShowsTheBenchmark(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	results, err := os.ReadFile("examples/bench/results/README.md")
	require.NoError(t, err)
	measured := regexp.MustCompile(`(?m)^Measured on .*$`).FindString(string(results))
	require.NotEmpty(t, measured)
	require.Contains(t, string(readme), measured)
	table := regexp.MustCompile(`(?m)^\| CPU time, µs \|.*\n(\|.*\n)+`).FindString(string(results))
	require.Greater(t, strings.Count(table, "\n"), 10)
	require.Contains(t, string(readme), table)
	for _, link := range regexp.MustCompile(`\]\(([a-z0-9_][^)#:]*)(#[^)]*)?\)`).FindAllStringSubmatch(string(readme), -1) {
		_, err := os.Stat(link[1])
		require.NoError(t, err)
	}
}
