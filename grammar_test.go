// SPDX-License-Identifier: Apache-2.0

package penstock_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/health"
	"github.com/penstock-lb/penstock/l4"
	"github.com/penstock-lb/penstock/l7"
	"github.com/penstock-lb/penstock/ratelimit"
)

// The tests of this file hold the exported interface of all packages to the grammar
// that CONTRIBUTING.md has.

// grammarDirs are the packages that hosts import.
var grammarDirs = append(slices.Clone(checkedDirs), "balance/file", "balance/balancetest", "health/healthtest", "l4/l4test", "l7/l7test")

// exportedField is a field of an exported struct that hosts set.
type exportedField struct {
	dir, owner, name string
	typ              ast.Expr
	doc              string // with that of the row of fields it is in
}

func (f exportedField) String() string {
	return filepath.Base(f.dir) + "." + f.owner + "." + f.name
}

// sources calls do for each file of the packages.
func sources(t *testing.T, dirs []string, do func(dir string, f *ast.File, fset *token.FileSet)) {
	fset := token.NewFileSet()
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".go" && !strings.HasSuffix(e.Name(), "_test.go") {
				f, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, parser.ParseComments)
				require.NoError(t, err)
				do(dir, f, fset)
			}
		}
	}
}

// typeSpecs calls do for each exported type.
func typeSpecs(t *testing.T, dirs []string, do func(dir string, s *ast.TypeSpec, fset *token.FileSet)) {
	sources(t, dirs, func(dir string, f *ast.File, fset *token.FileSet) {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok {
				for _, s := range d.Specs {
					if s, ok := s.(*ast.TypeSpec); ok && s.Name.IsExported() {
						do(dir, s, fset)
					}
				}
			}
		}
	})
}

func exportedFields(t *testing.T) []exportedField {
	var all []exportedField
	typeSpecs(t, grammarDirs, func(dir string, s *ast.TypeSpec, fset *token.FileSet) {
		st, ok := s.Type.(*ast.StructType)
		if !ok {
			return
		}
		group, next := "", 0
		for _, f := range st.Fields.List {
			if line := fset.Position(f.Pos()).Line; f.Doc != nil || line != next {
				group = f.Doc.Text()
			}
			next = fset.Position(f.End()).Line + 1
			for _, n := range f.Names {
				if n.IsExported() {
					all = append(all, exportedField{dir, s.Name.Name, n.Name, f.Type, group + f.Comment.Text()})
				}
			}
		}
	})
	require.Greater(t, len(all), 300)
	return all
}

// TestZeroAndNegativeAreOneSentence: where 0 is not none by itself the comment says
// "0 means X" and, if the thing can be switched off, ", negative means none"; where it
// is, "0 or negative means none". None may be "no limit", and may be explained after a
// colon or by "but".
func TestZeroAndNegativeAreOneSentence(t *testing.T) {
	negative := regexp.MustCompile(`(?i)\b(negative|less than 0|0 or less|or less means)\b`)
	sentence := regexp.MustCompile(`\b(0 or negative means|negative means) (none|no limit)\b`)
	silent := regexp.MustCompile(`\b0 means (none|no limit|never)\b`)
	for _, f := range exportedFields(t) {
		doc := strings.Join(strings.Fields(f.doc), " ")
		if told(f) || !slices.Contains(checkedDirs, f.dir) {
			continue // a test kit has numbers of its own
		}
		if negative.MatchString(doc) && !sentence.MatchString(doc) {
			t.Errorf("%v says of negative values %q; want %q or %q", f, doc, "0 means X, negative means none", "0 or negative means none")
		}
		if numeric(f.typ) && silent.MatchString(doc) {
			t.Errorf("%v says %q; want %q, for negative means the same", f, doc, "0 or negative means none")
		}
	}
}

// told reports whether a field is written by a package for its host to read.
func told(f exportedField) bool {
	return notChecked[filepath.Base(f.dir)+"."+f.owner] == "is told" || f.owner == "Exchange" || f.owner == "Reply" || f.owner == "View" || f.owner == "Outcome"
}

// numeric reports whether x is a type of signed numbers.
func numeric(x ast.Expr) bool {
	switch s := expr(x); s {
	case "int", "int64", "time.Duration": // a share is a float64, from 0 on
		return true
	}
	return false
}

func expr(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return expr(x.X) + "." + x.Sel.Name
	}
	return fmt.Sprintf("%T", x)
}

// TestHooksAreNamedOn: a func field without a result is told of something, so its name
// is On and what has happened, and its comment says that it must not block. Nothing else
// has such a name.
func TestHooksAreNamedOn(t *testing.T) {
	hook := regexp.MustCompile(`^On[A-Z]`)
	for _, f := range exportedFields(t) {
		typ := f.typ
		if l, ok := typ.(*ast.ArrayType); ok {
			typ = l.Elt
		}
		fn, ok := typ.(*ast.FuncType)
		isHook := ok && fn.Results.NumFields() == 0 && f.name != "Edit" // which changes what it is given
		if isHook != hook.MatchString(f.name) {
			t.Errorf("%v: On and a verb is the name of func fields without a result, and of nothing else", f)
		}
		if isHook && !strings.Contains(strings.Join(strings.Fields(f.doc), " "), "must not block") {
			t.Errorf("%v does not say that it must not block", f)
		}
	}
}

// TestNextIsAHandler of net/http in l7, of its own in l4.
func TestNextIsAHandler(t *testing.T) {
	want := map[string]string{"l4": "Handler", "l7": "http.Handler"}
	for _, f := range exportedFields(t) {
		if f.name == "Next" {
			require.Equal(t, want[f.dir], expr(f.typ), "%v", f)
		}
	}
}

// sameWord are the exported types that more than one package has, and what they mean in
// all of them. CONTRIBUTING.md has a glossary of those that hosts meet most.
var sameWord = map[string]string{
	"ALPN": "a matcher", "All": "what holds if each does", "Any": "what holds if one does", "SNI": "a matcher", "TLS": "of this protocol",
	"Bandwidth":    "limits in bytes a second",
	"Error":        "an error to read",
	"Field":        "a header field, name and value",
	"Handler":      "serves a connection or an exchange",
	"HandlerFunc":  "a func as a Handler",
	"Limit":        "a handler that asks limiters",
	"Limiter":      "says whether it may happen now",
	"Matcher":      "says whether a Route takes it",
	"Proxy":        "a handler that forwards to a pool",
	"Record":       "what is said of a connection or an exchange at its end",
	"Route":        "what a Matcher sends to a Handler",
	"Router":       "a handler that chooses one by routes",
	"Server":       "in balance what work is sent to; in l4, l7 and the test kits what serves, as http.Server",
	"Source":       "says which endpoints there are",
	"Stats":        "figures",
	"Tarpit":       "a handler that keeps waiting",
	"TimeoutError": "the error of a timeout, which it names",
}

// TestOneWordOneMeaning: an exported type has a name of its own, unless it means the
// same as its namesakes.
func TestOneWordOneMeaning(t *testing.T) {
	where := map[string][]string{}
	typeSpecs(t, append(slices.Clone(checkedDirs), "balance/file"), func(dir string, s *ast.TypeSpec, _ *token.FileSet) {
		if !slices.Contains(where[s.Name.Name], dir) {
			where[s.Name.Name] = append(where[s.Name.Name], dir)
		}
	})
	for name, dirs := range where {
		_, listed := sameWord[name]
		if len(dirs) > 1 && !listed {
			t.Errorf("%s is in %v: give one of them another name, or say what it means in all of them", name, dirs)
		}
	}
}

// enums are all types of numbers that have a String.
func enums() map[string]func(n uint8) string {
	return map[string]func(n uint8) string{
		"balance.Admin":          func(n uint8) string { return balance.Admin(n).String() },
		"balance.Class":          func(n uint8) string { return balance.Class(n).String() },
		"balance.EventKind":      func(n uint8) string { return balance.EventKind(n).String() },
		"balance.Health":         func(n uint8) string { return balance.Health(n).String() },
		"balance.Reporter":       func(n uint8) string { return balance.Reporter(n).String() },
		"balance.State":          func(n uint8) string { return balance.State(n).String() },
		"health.Code":            func(n uint8) string { return health.Code(n).String() },
		"health.EjectionKind":    func(n uint8) string { return health.EjectionKind(n).String() },
		"l4.Cause":               func(n uint8) string { return l4.Cause(n).String() },
		"l4.Phase":               func(n uint8) string { return l4.Phase(n).String() },
		"l4.Verdict":             func(n uint8) string { return l4.Verdict(n).String() },
		"ratelimit.BreakerState": func(n uint8) string { return ratelimit.BreakerState(n).String() },
		"l7.Front":               func(n uint8) string { return l7.Front(n).String() },
		"l7.XFCC":                func(n uint8) string { return l7.XFCC(n).String() },
		"l7.Reuse":               func(n uint8) string { return l7.Reuse(n).String() },
	}
}

// TestEnumsNameEveryValue: no value makes String panic, and no two have one name, so
// that what is out of range does not pass for something else.
func TestEnumsNameEveryValue(t *testing.T) {
	numbers, have := map[string]bool{}, map[string]bool{}
	typeSpecs(t, grammarDirs, func(dir string, s *ast.TypeSpec, _ *token.FileSet) {
		if id, ok := s.Type.(*ast.Ident); ok && strings.Contains(id.Name, "int") || ok && id.Name == "byte" {
			numbers[filepath.Base(dir)+"."+s.Name.Name] = true
		}
	})
	sources(t, grammarDirs, func(dir string, f *ast.File, _ *token.FileSet) {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Name.Name == "String" && d.Recv != nil {
				have[filepath.Base(dir)+"."+receiver(d.Recv.List[0].Type)] = true
			}
		}
	})
	all := enums()
	for name := range numbers {
		require.True(t, !have[name] || all[name] != nil, "%s is not in the list", name)
	}
	for name, text := range all {
		require.True(t, numbers[name], name)
		seen := map[string]int{}
		for n := range 256 {
			s := text(uint8(n))
			require.NotEmpty(t, s, "%s(%d)", name, n)
			other, twice := seen[s]
			require.False(t, twice, "%s: %d and %d are %q", name, other, n, s)
			seen[s] = n
		}
	}
}

// TestNamesDifferInMoreThanCase: go doc ignores the case of what it is asked for, and shows
// both of two names that differ in nothing else.
func TestNamesDifferInMoreThanCase(t *testing.T) {
	seen := make(map[string]string)
	sources(t, grammarDirs, func(dir string, f *ast.File, _ *token.FileSet) {
		for name := range f.Scope.Objects {
			if key := dir + "." + strings.ToLower(name); ast.IsExported(name) {
				other := cmp.Or(seen[key], name) // the same in a file for another system
				require.Equal(t, other, name, "go doc shows both where one is asked for")
				seen[key] = name
			}
		}
	})
}

// TestConstantsAreShownWithTheirType: go doc lists the constants of a type with the type,
// unless their group has a constant of another type.
func TestConstantsAreShownWithTheirType(t *testing.T) {
	groups := 0
	sources(t, checkedDirs, func(dir string, f *ast.File, fset *token.FileSet) {
		for _, d := range f.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST {
				continue
			}
			of := map[string]bool{}
			exported := false
			for _, s := range d.Specs {
				s := s.(*ast.ValueSpec)
				exported = exported || ast.IsExported(s.Names[0].Name)
				if s.Type != nil {
					of[expr(s.Type)] = true
				}
			}
			if exported && len(of) > 0 {
				groups++
				if len(of) > 1 {
					t.Errorf("%s: go doc hides this group: it has constants of %d types", fset.Position(d.Pos()), len(of))
				}
			}
		}
	})
	require.Greater(t, groups, 15)
}

// TestMachineryIsMarked: what l4 exports for l7 alone is listed in its package comment,
// and each comment says so.
func TestMachineryIsMarked(t *testing.T) {
	var list string
	marked := map[string]bool{}
	mark := func(name string, doc *ast.CommentGroup) {
		if strings.HasSuffix(strings.TrimSpace(doc.Text()), `It is for package l7: see "Machinery" in the package documentation.`) {
			marked[name] = true
		}
	}
	sources(t, []string{"l4"}, func(_ string, f *ast.File, _ *token.FileSet) {
		if _, after, ok := strings.Cut(f.Doc.Text(), "# Machinery\n"); ok {
			list, _, _ = strings.Cut(after, " are\nexported")
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d.Recv.List[0].Type) + "." + name
				}
				mark(name, d.Doc)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						mark(s.Name.Name, d.Doc)
					case *ast.ValueSpec:
						mark(s.Names[0].Name, d.Doc)
					}
				}
			}
		}
	})
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`\[([\w.]+)\]`).FindAllStringSubmatch(list, -1) {
		listed[m[1]] = true
	}
	require.NotEmpty(t, listed)
	require.Equal(t, listed, marked)
}

// TestNamesOfHTTPServer: each name that our servers share with that of net/http is meant
// to do the same, so a new one is a decision.
func TestNamesOfHTTPServer(t *testing.T) {
	names := func(v any) map[string]bool {
		all, p := map[string]bool{}, reflect.TypeOf(v)
		for i := range p.NumMethod() {
			all[p.Method(i).Name] = true
		}
		for i := range p.Elem().NumField() {
			if f := p.Elem().Field(i); f.IsExported() {
				all[f.Name] = true
			}
		}
		return all
	}
	theirs := names(&http.Server{})
	for _, test := range []struct {
		server any
		want   []string
	}{
		{&l7.Server{}, []string{"Addr", "BaseContext", "Close", "ConnContext", "Handler", "IdleTimeout", "ListenAndServe", "ListenAndServeTLS",
			"MaxHeaderBytes", "Protocols", "ReadHeaderTimeout", "RegisterOnShutdown", "Serve", "ServeTLS", "SetKeepAlivesEnabled", "Shutdown", "TLSConfig"}},
		{&l4.Server{}, []string{"Close", "ConnContext", "Handler", "Serve", "Shutdown"}},
	} {
		var both []string
		for name := range names(test.server) {
			if theirs[name] {
				both = append(both, name)
			}
		}
		slices.Sort(both)
		require.Equal(t, test.want, both, "%T", test.server)
	}
}
