// SPDX-License-Identifier: Apache-2.0

package nethttptest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// What export_test.go of net/http shows of the insides of a Server or of a
// Transport. A test that looks there says nothing of what stands in for it.
var (
	ofServer    = []string{"ExportServerNewConn", "ExportAllConnsIdle", "ExportAllConnsByState", "ResponseWriterConnForTesting", "ExportCloseWriteAndWait", "ExportSetH2GoawayTimeout"}
	ofTransport = []string{
		"NumPendingRequestsForTesting", "IdleConnKeysForTesting", "IdleConnKeyCountForTesting", "IdleConnStrsForTesting", "IdleConnStrsForTesting_h2",
		"IdleConnCountForTesting", "IdleConnWaitMapSizeForTesting", "IsIdleForTesting", "QueueForIdleConnForTesting", "PutIdleTestConn", "PutIdleTestConnH2",
		"SetEnterRoundTripHook", "SetRoundTripRetried", "SetReadLoopBeforeNextReadHook", "SetPendingDialHooks", "SetTestHookProxyConnectTimeout",
		"ExportErrRequestCanceled", "ExportErrRequestCanceledConn", "ExportErrServerClosedIdle", "ExportCloseTransportConnsAbruptly",
	}
)

// usesOf returns the tests of a suite, and for each what it reaches of ofServer
// and ofTransport, by itself or through a function of its package.
func (o *overlay) usesOf(s suite) map[string][]string {
	calls := make(map[string][]string) // function: names in its body
	files, _ := filepath.Glob(filepath.Join(o.root, s.dir, "*_test.go"))
	for _, f := range files {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			o.t.Fatal(err)
		}
		if file.Name.Name != s.pkg {
			continue
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					calls[fn.Name.Name] = append(calls[fn.Name.Name], id.Name)
				}
				return true
			})
		}
	}
	uses := make(map[string][]string)
	for name := range calls {
		if strings.HasPrefix(name, "Test") && name != "TestMain" {
			uses[name] = reach(name, calls, map[string]bool{})
			if uses[name] == nil {
				uses[name] = []string{}
			}
		}
	}
	return uses
}

func reach(name string, calls map[string][]string, seen map[string]bool) (found []string) {
	if seen[name] {
		return nil
	}
	seen[name] = true
	for _, c := range calls[name] {
		if slices.Contains(ofServer, c) || slices.Contains(ofTransport, c) {
			found = append(found, c)
		} else {
			found = append(found, reach(c, calls, seen)...)
		}
	}
	return found
}
