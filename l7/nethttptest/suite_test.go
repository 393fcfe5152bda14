// SPDX-License-Identifier: Apache-2.0

package nethttptest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock-lb/penstock/l7/nethttptest/stand"
)

// version is the Go whose tests the lists are about. Another has other tests.
const version = "go1.26"

const (
	runTimeout  = 400 * time.Second // of all tests of a mode
	testTimeout = 5 * time.Second   // of one that is in a list
)

// runVar is the variable of the environment that asks for the suite: it takes
// minutes, and has a step of its own in .ci/run.
const runVar = "PENSTOCK_NETHTTP"

// TestSuite runs the tests of net/http and httputil in each mode.
func TestSuite(t *testing.T) {
	if os.Getenv(runVar) == "" {
		t.Skip("set " + runVar + "=1 to run the tests of net/http")
	}
	if v := runtime.Version(); v != version && !strings.HasPrefix(v, version+".") {
		t.Skipf("the lists are about the tests of %s, this is %s", version, v)
	}
	o := newOverlay(t)
	o.hook()
	var programs []*program
	for name, s := range suites {
		programs = append(programs, &program{bin: o.build(name, s), dir: filepath.Join(o.root, s.dir), uses: o.usesOf(s)})
	}
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			l := readList(t, m.name)
			for _, p := range programs {
				m.run(t, p, l)
			}
			l.checkUsed(t)
		})
	}
}

var modes = []mode{
	{"foreign", ofServer},
	{"member", ofServer},
	{"before", ofServer},
	{"client", ofTransport},
}

// most is how many differences a mode may have. Each is of a kind of its own.
const most = 20

// rules say why a test may be in a list of those that do not apply.
var rules = []string{"log", "text", "internals", "other connection", "clock"}

// TestLists looks at the lists, without the tests.
func TestLists(t *testing.T) {
	for _, m := range modes {
		l := readList(t, m.name)
		differences, tests := make(map[string]bool), 0
		for _, e := range l.entries {
			if rule, _, _ := strings.Cut(e.reason, ":"); e.applies {
				differences[e.reason] = true
				tests++
			} else if !slices.Contains(rules, rule) {
				t.Errorf("%s: no rule is named %q", m.name, rule)
			}
		}
		if len(differences) > most {
			t.Errorf("%s has %d differences; want %d at most", m.name, len(differences), most)
		}
		t.Logf("%s: %d differences, which %d tests show, and %d tests that do not apply", m.name, len(differences), tests, len(l.entries)-tests)
	}
}

type program struct {
	bin, dir string
	uses     map[string][]string // what internals of net/http each test reaches
}

type mode struct {
	name      string
	internals []string // a test that reaches one of them is about net/http's own
}

// run runs the tests of a program that apply and are not in the list, and then,
// one by one, those that are.
func (m mode) run(t *testing.T, p *program, l *list) {
	var skip, listed []string
	for name, uses := range p.uses {
		if slices.ContainsFunc(uses, func(u string) bool { return slices.Contains(m.internals, u) }) {
			skip = append(skip, name)
			if l.has(name) {
				t.Errorf("%s does not apply, and needs no line in the list", name)
			}
		}
	}
	internals := len(skip)
	for _, e := range l.entries {
		if name, _, _ := strings.Cut(e.test, "/"); p.uses[name] != nil {
			skip = append(skip, e.test)
			if e.unsteady {
				l.used(e.test)
			} else {
				listed = append(listed, e.test)
			}
		}
	}
	out := p.exec(m.name, runTimeout, "-test.skip", pattern(skip))
	results := resultsOf(out)
	passed := 0
	var missed []string
	for name := range p.uses {
		if _, ran := results[name]; !ran && !slices.Contains(skip, name) {
			missed = append(missed, name)
		}
	}
	if len(missed) > 0 {
		slices.Sort(missed)
		t.Errorf("the program ended before %d tests, %s among them:\n%s", len(missed), missed[0], out[max(0, len(out)-2000):])
	}
	for name, r := range results {
		switch {
		case strings.Contains(name, "/"):
			if r == "FAIL" {
				t.Errorf("%s failed, and is not in the lists of %s", name, m.name)
			}
		case r == "PASS":
			passed++
		case r == "FAIL" || r == "":
			t.Errorf("%s failed, and is not in the lists of %s:\n%s", name, m.name, outputOf(out, name))
		}
	}
	t.Logf("%s: %d tests pass, %d are listed, %d are about internals", filepath.Base(p.bin), passed, len(listed), internals)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 3)
	for _, name := range listed {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out := p.exec(m.name, testTimeout, "-test.run", pattern([]string{name}))
			if r := resultsOf(out)[name]; r == "PASS" {
				t.Errorf("%s passes: take it off the list of %s", name, m.name)
			} else if r == "SKIP" || bytes.Contains(out, []byte("no tests to run")) {
				t.Errorf("%s, in the list of %s, does not run", name, m.name)
			}
			l.used(name)
		})
	}
	wg.Wait()
}

// exec runs tests and returns what they print.
func (p *program) exec(mode string, timeout time.Duration, args ...string) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), timeout+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.bin, append(args, "-test.v", "-test.timeout", timeout.String())...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), stand.ModeVar+"="+mode)
	out, _ := cmd.CombinedOutput() // the output tells what failed
	return out
}

// pattern matches tests by their whole names.
func pattern(names []string) string {
	if len(names) == 0 {
		return "^$"
	}
	var all []string
	for _, n := range names {
		all = append(all, "^"+strings.ReplaceAll(regexp.QuoteMeta(n), "/", "$/^")+"$")
	}
	return strings.Join(all, "|")
}

var (
	ran   = regexp.MustCompile(`(?m)^=== RUN +(Test\S+)$`)
	ended = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (Test\S+) \(`)
)

// resultsOf returns PASS, FAIL or SKIP for each test that ended, and nothing for
// one that was running when the program ended.
func resultsOf(out []byte) map[string]string {
	r := make(map[string]string)
	for _, m := range ran.FindAllSubmatch(out, -1) {
		if name := string(m[1]); !strings.Contains(name, "/") {
			r[name] = ""
		}
	}
	for _, m := range ended.FindAllSubmatch(out, -1) {
		r[string(m[2])] = string(m[1])
	}
	return r
}

// outputOf returns what a test printed, or what the program did last.
func outputOf(out []byte, name string) []byte {
	_, rest, _ := bytes.Cut(out, []byte("=== RUN   "+name+"\n"))
	if i := bytes.Index(rest, []byte("\n--- ")); i >= 0 {
		rest = rest[:i]
	}
	return rest[:min(len(rest), 4000)]
}

// A list has the tests that do not pass in a mode. A line that is not indented is a
// difference, or a rule by which tests do not apply; below it, indented, are the tests
// that show it. Lines that begin with # are comments. A test behind a ~ passes at
// times, and is not run.
type list struct {
	mode    string
	entries []entry
	mu      sync.Mutex
	seen    map[string]bool
}

type entry struct {
	test, reason string
	unsteady     bool
	applies      bool // it shows a difference
}

// readList reads the two lists of a mode: of differences, and of what does not apply.
func readList(t *testing.T, mode string) *list {
	l := &list{mode: mode, seen: make(map[string]bool)}
	l.read(t, mode+".txt", true)
	l.read(t, mode+"-not.txt", false)
	return l
}

func (l *list) read(t *testing.T, file string, applies bool) {
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	reason, last := "", ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		name, indented := strings.CutPrefix(line, "  ")
		switch {
		case line == "" || line[0] == '#':
		case !indented:
			reason, last = line, ""
		default:
			name, unsteady := strings.CutPrefix(name, "~")
			if reason == "" || l.has(name) || name <= last {
				t.Errorf("%s: %s has no reason, is there twice, or is out of order", file, name)
			}
			last = name
			l.entries = append(l.entries, entry{name, reason, unsteady, applies})
		}
	}
}

func (l *list) has(test string) bool {
	return slices.ContainsFunc(l.entries, func(e entry) bool { return e.test == test })
}

func (l *list) used(test string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[test] = true
}

// checkUsed finds lines about tests that there are not.
func (l *list) checkUsed(t *testing.T) {
	for _, e := range l.entries {
		if !l.seen[e.test] {
			t.Errorf("%s: there is no %s", l.mode, e.test)
		}
	}
}
