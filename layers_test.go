// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/penstock-lb/penstock"

// TestLayers keeps the arrows of doc.go pointing down: a package depends on
// nothing of the module but the root and what is listed here, test kits
// included.
func TestLayers(t *testing.T) {
	allowed := map[string][]string{
		".":         {}, // every package may import the root, for ConfigError
		"balance":   {"balance"},
		"ratelimit": {"ratelimit"},
		"health":    {"health", "balance"},
		"l4":        {"l4", "balance", "ratelimit"},
		"l7":        {"l7", "l4", "balance", "ratelimit"}, // l7/admin too: of health it knows its own interfaces
	}
	for layer, may := range allowed {
		t.Run(layer, func(t *testing.T) {
			var stderr strings.Builder
			pattern := "./" + layer + "/..."
			if layer == "." {
				pattern = "."
			}
			cmd := exec.Command("go", "list", "-deps", pattern)
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			require.NoError(t, err, "%s", &stderr)
			deps := strings.Fields(string(out))
			require.Contains(t, deps, path.Join(module, layer))
			for _, dep := range deps {
				require.NotContains(t, dep, "stretchr/testify", "testify is for _test.go files")
				if layer == "balance" {
					require.NotEqual(t, "net/http", dep, "balance serves layer 4 too")
				}
				if layer == "." {
					require.False(t, strings.HasPrefix(dep, module+"/"), "the root imports %s", dep)
				}
				if rest, ours := strings.CutPrefix(dep, module+"/"); ours {
					top, _, _ := strings.Cut(rest, "/")
					require.Contains(t, may, top, "%s imports %s", layer, rest)
				}
			}
		})
	}
}

// TestAdminIsOnTop: what a gateway does not show to operators is not linked in.
func TestAdminIsOnTop(t *testing.T) {
	for _, below := range []string{"./l7", "./l4", "./health"} {
		out, err := exec.Command("go", "list", "-deps", below).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NotContains(t, strings.Fields(string(out)), module+"/l7/admin", below)
		require.NotContains(t, strings.Fields(string(out)), "html/template", below)
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
