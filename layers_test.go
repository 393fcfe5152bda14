// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/penstock-lb/penstock"

// TestLayers keeps the arrows of doc.go pointing down: a package depends on
// nothing of the module but what is listed here.
func TestLayers(t *testing.T) {
	allowed := map[string][]string{
		"balance":   {},
		"ratelimit": {},
		"health":    {"balance", "health"},
		"l4":        {"balance", "ratelimit", "l4"},
		"l7":        {"balance", "ratelimit", "l4", "l7"},
	}
	for layer, may := range allowed {
		t.Run(layer, func(t *testing.T) {
			out, err := exec.Command("go", "list", "-deps", "./"+layer).CombinedOutput()
			require.NoError(t, err, "%s", out)
			for dep := range strings.Lines(string(out)) {
				dep = strings.TrimSpace(dep)
				if layer == "balance" {
					require.NotEqual(t, "net/http", dep, "balance serves layer 4 too")
				}
				rest, ours := strings.CutPrefix(dep, module+"/")
				if !ours || rest == layer {
					continue
				}
				top, _, _ := strings.Cut(rest, "/")
				require.Contains(t, may, top, "%s imports %s", layer, rest)
			}
		})
	}
}

// TestDependencies keeps the direct dependencies of the root module at three.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.ElementsMatch(t, []string{
		"github.com/stretchr/testify",
		"golang.org/x/net",
		"golang.org/x/time",
	}, strings.Fields(string(out)))
}
