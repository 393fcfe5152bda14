// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write schema.json")

// TestSchemaIsThatOfSnapshot makes the schema from the types and their comments.
func TestSchemaIsThatOfSnapshot(t *testing.T) {
	docs := make(map[string]string)
	f, err := parser.ParseFile(token.NewFileSet(), "snapshot.go", nil, parser.ParseComments)
	require.NoError(t, err)
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		spec := g.Specs[0].(*ast.TypeSpec)
		docs[spec.Name.Name] = strings.Join(strings.Fields(g.Doc.Text()), " ")
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			docs[spec.Name.Name+"."+field.Names[0].Name] = strings.TrimSpace(field.Comment.Text())
		}
	}
	defs := make(map[string]any)
	root := describe(reflect.TypeFor[Snapshot](), docs, defs)
	root["$schema"], root["title"], root["$defs"] = "https://json-schema.org/draft/2020-12/schema", "Snapshot", defs
	want, err := json.MarshalIndent(root, "", " ")
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("schema.json", append(want, '\n'), 0o644))
	}
	got, err := os.ReadFile("schema.json")
	require.NoError(t, err)
	require.Equal(t, string(want)+"\n", string(got), "go test ./l7/admin -run TestSchema -update makes it anew")
}

// describe returns the schema of a type; those of other structs go to defs.
func describe(t reflect.Type, docs map[string]string, defs map[string]any) map[string]any {
	switch {
	case t.String() == "time.Time":
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return describe(t.Elem(), docs, defs)
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": reference(t.Elem(), docs, defs)}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": describe(t.Elem(), docs, defs)}
	case t.Kind() == reflect.Struct:
	default:
		names := map[reflect.Kind]string{reflect.Bool: "boolean", reflect.String: "string", reflect.Int: "integer", reflect.Uint64: "integer", reflect.Float64: "number"}
		return map[string]any{"type": names[t.Kind()]}
	}
	properties, required := make(map[string]any), []string{}
	for i := range t.NumField() {
		field := t.Field(i)
		name, opts, ok := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		one := reference(field.Type, docs, defs)
		one["description"] = docs[t.Name()+"."+field.Name]
		if one["description"] == "" {
			panic(t.Name() + "." + field.Name + " has no comment")
		}
		if properties[name] = one; !ok || opts != "omitempty" {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "description": docs[t.Name()], "properties": properties, "required": required}
}

// reference is describe with a name for structs.
func reference(t reflect.Type, docs map[string]string, defs map[string]any) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.String() == "time.Time" {
		return describe(t, docs, defs)
	}
	if defs[t.Name()] == nil {
		defs[t.Name()] = describe(t, docs, defs)
	}
	return map[string]any{"$ref": "#/$defs/" + t.Name()}
}
