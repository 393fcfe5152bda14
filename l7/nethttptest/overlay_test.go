// SPDX-License-Identifier: Apache-2.0

package nethttptest

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A suite is a package of the standard library whose tests are run.
type suite struct {
	dir string // below GOROOT/src; the tests run there, for its testdata
	pkg string // "http_test" takes the tests of the external package, any other the whole package
}

var suites = map[string]suite{
	"nethttp":  {dir: "net/http", pkg: "http_test"},
	"httputil": {dir: "net/http/httputil", pkg: "httputil"},
}

// An overlay tells the go command to read files from elsewhere. Nothing of GOROOT
// is changed, and nothing is copied but to a temporary directory.
type overlay struct {
	t       *testing.T
	root    string // GOROOT/src
	tmp     string
	Replace map[string]string
}

func newOverlay(t *testing.T) *overlay {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return &overlay{t: t, root: filepath.Join(strings.TrimSpace(string(out)), "src"), tmp: t.TempDir(), Replace: map[string]string{}}
}

// put has path be a file with that content.
func (o *overlay) put(path, content string) {
	f := filepath.Join(o.tmp, strconv.Itoa(len(o.Replace))+".go")
	if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
		o.t.Fatal(err)
	}
	o.Replace[path] = f
}

func (o *overlay) read(path string) string {
	b, err := os.ReadFile(filepath.Join(o.root, path))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(b)
}

// hooked are the methods in whose place those of testdata are called.
var hooked = map[string][]string{
	"net/http/server.go":          {"*Server) Serve(", "*Server) Shutdown(", "*Server) Close(", "*Server) RegisterOnShutdown(", "*Server) SetKeepAlivesEnabled("},
	"net/http/roundtrip.go":       {"*Transport) RoundTrip("},
	"net/http/transport.go":       {"*Transport) CloseIdleConnections("},
	"net/http/httptest/server.go": {"*Server) Close("},
}

// hook has net/http call what stands in for its servers and transports, and
// show its tests what its own export_test.go does.
func (o *overlay) hook() {
	for path, methods := range hooked {
		src := o.read(path)
		for _, m := range methods {
			_, name, _ := strings.Cut(m, ") ")
			was := regexp.MustCompile(`(?m)^func \((\w+) ` + regexp.QuoteMeta(m))
			if len(was.FindAllString(src, -1)) != 1 {
				o.t.Fatalf("%s has no func (%s...)", path, m)
			}
			recv, _, _ := strings.Cut(m, ")")
			src = was.ReplaceAllString(src, "func ($1 "+recv+") real"+name)
		}
		if path == "net/http/roundtrip.go" { // a method that is not there any more
			src = regexp.MustCompile(`(?m)^//go:linkname badRoundTrip.*\n^func badRoundTrip.*\n`).ReplaceAllString(src, "")
		}
		o.put(filepath.Join(o.root, path), src)
	}
	for from, to := range map[string]string{"standins.go": "net/http/standins.go", "closed.go": "net/http/httptest/closed.go"} {
		b, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			o.t.Fatal(err)
		}
		o.put(filepath.Join(o.root, to), string(b))
	}
	o.put(filepath.Join(o.root, "net/http/exported.go"), o.read("net/http/export_test.go"))
}

// add adds the package of a suite to this module and returns its import path.
func (o *overlay) add(name string, s suite) string {
	here, err := os.Getwd()
	if err != nil {
		o.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(o.root, s.dir, "*.go"))
	if err != nil {
		o.t.Fatal(err)
	}
	for _, f := range files {
		src := o.read(filepath.Join(s.dir, filepath.Base(f)))
		file, err := parser.ParseFile(token.NewFileSet(), f, src, parser.ImportsOnly)
		if err != nil {
			o.t.Fatal(err)
		}
		if file.Name.Name != s.pkg {
			continue
		}
		o.put(filepath.Join(here, name, filepath.Base(f)), o.visible(src, file.Imports))
	}
	o.put(filepath.Join(here, name, "standin_test.go"), "package "+s.pkg+"\n\nimport (\n\t\"net/http\"\n\t\""+module+"/stand\"\n)\n\nfunc init() { stand.Install(&http.StandIns.Hooks) }\n")
	return module + "/" + name
}

const module = "github.com/penstock-lb/penstock/l7/nethttptest"

// visible changes imports of internal packages of the standard library to those of
// packages that show the same, under a path that anybody may import.
func (o *overlay) visible(src string, imports []*ast.ImportSpec) string {
	for _, i := range slices.Backward(imports) {
		path, _ := strconv.Unquote(i.Path.Value)
		to := path
		switch {
		case strings.HasPrefix(path, "internal/") || strings.Contains(path, "/internal/") || strings.HasSuffix(path, "/internal"):
			to = strings.ReplaceAll(path, "internal", "shown")
			o.show(path, to)
		}
		if to != path {
			at := int(i.Path.Pos()) - 1
			name := ""
			if i.Name == nil && filepath.Base(path) == "internal" {
				name = "internal "
			}
			src = src[:at] + name + strconv.Quote(to) + src[at+len(i.Path.Value):]
		}
	}
	// Two tests look for the name of their own package in a stack.
	return strings.ReplaceAll(src, "from net/http_test.", "from "+module+"/nethttp_test.")
}

// show makes a package that exports what another does.
func (o *overlay) show(path, to string) {
	target := filepath.Join(o.root, to, "shown.go")
	if o.Replace[target] != "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(o.root, path, "*.go"))
	if err != nil {
		o.t.Fatal(err)
	}
	name := filepath.Base(path)
	var b strings.Builder
	fmt.Fprintf(&b, "package %s\n\nimport in %q\n\n", name, path)
	shown := map[string]bool{}
	show := func(kind, name string) {
		if ast.IsExported(name) && !shown[name] {
			shown[name] = true
			fmt.Fprintf(&b, "%s %s = in.%s\n", kind, name, name)
		}
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			o.t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Type.TypeParams == nil {
					show("var", d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						show("type", s.Name.Name)
					case *ast.ValueSpec:
						for _, n := range s.Names {
							show(d.Tok.String(), n.Name)
						}
					}
				}
			}
		}
	}
	o.put(target, b.String())
}

// build compiles the tests of a suite and returns the program.
func (o *overlay) build(name string, s suite) string {
	pkg := o.add(name, s)
	list := filepath.Join(o.tmp, name+".json")
	b, err := json.Marshal(o)
	if err == nil {
		err = os.WriteFile(list, b, 0o600)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	bin := filepath.Join(o.tmp, name+".test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", list, "-o", bin, pkg).CombinedOutput(); err != nil {
		o.t.Fatalf("%v\n%s", err, out)
	}
	return bin
}
