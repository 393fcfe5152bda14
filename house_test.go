// SPDX-License-Identifier: Apache-2.0

package penstock

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHouse keeps the small promises of CONTRIBUTING.md: each Go file begins
// with its licence, and no work is left behind as a note in the code.
func TestHouse(t *testing.T) {
	const licence = "// SPDX-License-Identifier: Apache-2.0\n"
	left := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b|//.*\bfor` + ` now\b`)
	words := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "for" + " now"} // most files have none
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if !strings.HasPrefix(string(text), licence) {
			t.Errorf("%s does not begin with %q", path, strings.TrimSpace(licence))
		}
		if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(string(text), w) }) {
			return nil
		}
		for i, line := range strings.Split(string(text), "\n") {
			if found := left.FindString(line); found != "" {
				t.Errorf("%s:%d: %q: do it, or write it into an issue", path, i+1, found)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Positive(t, files)
}

// TestTop keeps the top level at the five layers and the examples.
func TestTop(t *testing.T) {
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			require.Contains(t, []string{"balance", "health", "ratelimit", "l4", "l7", "examples"}, e.Name())
		}
	}
}
