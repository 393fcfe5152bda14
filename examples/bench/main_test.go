// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, file, text string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "go test ./examples/bench -update writes it anew")
}

// TestConfigurations fills everything that a peer is started with.
func TestConfigurations(t *testing.T) {
	routes := example
	routes.Routes, routes.Cores, routes.TCP, routes.Stream = 3, 2, "", ""
	stream := example
	stream.Stream = "modules/ngx_stream_module.so"
	for name, s := range map[string]Setup{"setup.txt": stream, "setup-routes.txt": routes} {
		var b strings.Builder
		for _, p := range peers {
			s := s
			if !p.TCP {
				s.TCP = ""
			}
			args, err := s.Args(p.Args)
			require.NoError(t, err)
			fmt.Fprintf(&b, "==> %s %s\n", p.Name, strings.Join(args, " "))
			for _, file := range p.Files {
				text, err := s.Render(file)
				require.NoError(t, err)
				fmt.Fprintf(&b, "--> %s\n%s", file, text)
			}
		}
		text, err := s.Render("origin.conf")
		require.NoError(t, err)
		golden(t, name, b.String()+"==> origin\n"+text)
	}
}

// TestTables looks for what the tables of peers, scenarios and modes name.
func TestTables(t *testing.T) {
	names := map[string]bool{}
	for _, s := range scenarios {
		require.False(t, names[s.Name], s.Name)
		names[s.Name] = true
		require.NotEmpty(t, s.Title+s.Unit, s.Name)
		require.Positive(t, s.Load.Conns, s.Name)
		require.Equal(t, s.Load.HTTP2, s.Load.Streams > 0, s.Name)
	}
	for _, name := range slices.Concat(quickly, shown) {
		require.True(t, names[name] || name == "http-idle", name)
	}
	for _, m := range modes {
		for _, name := range m.Works {
			require.True(t, names[name], name)
		}
		require.True(t, slices.IsSorted(m.Sizes), m.Name)
	}
	require.Equal(t, "penstock", peers[0].Name, "others are compared with the first")
	require.LessOrEqual(t, len(peers), len(colors))
	for _, p := range peers {
		require.NotEqual(t, p.Program == "", p.Package == "", p.Name)
		for _, pkg := range []string{p.Package, p.Routes} {
			_, err := os.Stat("../.." + pkg)
			require.NoError(t, err)
		}
	}
}

// TestReports draws a record.
func TestReports(t *testing.T) {
	r, err := readRecord("testdata/record.json")
	require.NoError(t, err)
	all := r.reports()
	require.Len(t, all, 4)
	require.Equal(t, "global\n", all["configs/haproxy.cfg"])
	for _, file := range []string{"README.md", "cpu.svg", "servers.svg"} {
		golden(t, file, all[file])
		if strings.HasSuffix(file, ".svg") {
			wellFormed(t, all[file])
		}
	}
	dir := t.TempDir()
	require.NoError(t, command(t.Context(), []string{"-draw", "testdata/record.json", "-out", dir}, io.Discard, io.Discard))
	again, err := readRecord(dir + "/record.json")
	require.NoError(t, err)
	require.Equal(t, r, again)
}

func wellFormed(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

func TestSummary(t *testing.T) {
	rounds := []round{{20, 60, 5}, {30, 40, 4}, {30, 45, 6}}
	require.Equal(t, Result{CPU: 30, Low: 20, High: 30, Rate: 45, P99: 5}, summary(rounds))
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
	require.Zero(t, median(nil))
}

// TestRatiosAreOfTheFiguresShown divides, as a reader does, each CPU time by that of
// penstock in its row.
func TestRatiosAreOfTheFiguresShown(t *testing.T) {
	compared := regexp.MustCompile(`^([0-9.]+) \(([0-9.]+)×\)`)
	for _, file := range []string{"results/record.json", "testdata/record.json"} {
		r, err := readRecord(file)
		require.NoError(t, err)
		found := 0
		for line := range strings.Lines(r.markdown()) {
			cells := strings.Split(line, " | ")
			for _, cell := range cells[1:] {
				m := compared.FindStringSubmatch(cell)
				if m == nil {
					continue
				}
				found++
				first, err := strconv.ParseFloat(cells[1], 64)
				require.NoError(t, err, line)
				theirs, err := strconv.ParseFloat(m[1], 64)
				require.NoError(t, err, line)
				require.Equal(t, number3(theirs/first), m[2], "%s: %s", file, line)
			}
		}
		require.GreaterOrEqual(t, found, 4, file)
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		cpus        []int
		cores       int
		peers, load []int
	}{
		{[]int{0}, 1, []int{0}, []int{0}},
		{[]int{0, 1}, 1, []int{1}, []int{0}},
		{[]int{0, 1}, 2, []int{0, 1}, []int{0, 1}},
		{[]int{2, 3, 6, 7}, 2, []int{6, 7}, []int{2, 3}},
		{[]int{0, 1}, 4, []int{0, 1}, []int{0, 1}},
	} {
		peers, load := split(c.cpus, c.cores)
		require.Equal(t, c.peers, peers)
		require.Equal(t, c.load, load)
	}
}

func TestServerAddrs(t *testing.T) {
	all := serverAddrs(10000, 80)
	require.Equal(t, "127.0.0.1:80", all[0])
	require.Equal(t, "127.0.39.250:80", all[9999])
	slices.Sort(all)
	require.Len(t, slices.Compact(all), 10000)
}

func TestOptions(t *testing.T) {
	parse := func(args ...string) (*Options, error) { return parseOptions(args, io.Discard) }
	o, err := parse()
	require.NoError(t, err)
	require.Equal(t, modeNames(), o.modes)
	require.Equal(t, peerNames(), o.only)
	o, err = parse("-quick")
	require.NoError(t, err)
	require.Equal(t, []string{"peers", "idle"}, o.modes)
	require.True(t, o.own)
	o, err = parse("-quick", "-run", "routes,cores", "-peers", "penstock,nginx")
	require.NoError(t, err)
	require.Equal(t, []string{"routes", "cores"}, o.modes)
	require.Equal(t, []string{"penstock", "nginx"}, o.only)
	for _, wrong := range []string{"-run=fast", "-peers=apache", "-rounds=0", "-seconds=-1", "-idle=0", "more", "-none"} {
		_, err := parse(wrong)
		require.Error(t, err, wrong)
	}
	_, err = parse("-h")
	require.ErrorIs(t, err, flag.ErrHelp)
}

func TestWriteCert(t *testing.T) {
	cert, _, both, err := writeCert(t.TempDir())
	require.NoError(t, err)
	require.FileExists(t, both)
	c, err := (&Job{Cert: cert}).secure()
	require.NoError(t, err)
	require.Equal(t, "localhost", c.ServerName)
	_, err = (&Job{Cert: both + "x"}).secure()
	require.Error(t, err)
}

func TestNumber3(t *testing.T) {
	for v, want := range map[float64]string{0: "-", 0.01234: "0.012", 0.9: "0.90", 1.999: "2.00", 12.34: "12.3", 123.4: "123", 12345: "12345"} {
		require.Equal(t, want, number3(v))
	}
	require.Equal(t, 90*time.Second, span("1.5", "m"))
}

// TestResults checks that folder results is what bench draws of its record, and that the
// peers are still set as they were then: a configuration that changes is measured again.
func TestResults(t *testing.T) {
	r, err := readRecord("results/record.json")
	require.NoError(t, err)
	for file, text := range r.reports() {
		got, err := os.ReadFile("results/" + file)
		require.NoError(t, err)
		require.Equal(t, text, string(got), "go run ./examples/bench -draw examples/bench/results/record.json -out examples/bench/results")
	}
	now := &Record{}
	var all []*Installed
	for _, p := range peers {
		require.Contains(t, r.Commands, p.Name)
		in := &Installed{Peer: p}
		if p.Name == "nginx" {
			in.Stream = "modules/ngx_stream_module.so"
		}
		all = append(all, in)
	}
	require.NoError(t, now.configure(all))
	require.Equal(t, now.Configs, r.Configs)
	require.Equal(t, now.Commands, r.Commands)
	for _, m := range modes {
		for _, size := range m.Sizes {
			if len(r.sizes(m.Name)) > 0 {
				require.NotNil(t, r.of(m.Name, m.Works[0], size, "penstock"), "%s %d", m.Name, size)
			}
		}
	}
	for _, s := range scenarios {
		for _, p := range peers {
			x := r.of("peers", s.Name, 0, p.Name)
			if s.Front == TCP && !p.TCP {
				require.Nil(t, x)
				continue
			}
			require.NotNil(t, x, "%s %s", s.Name, p.Name)
			require.Zero(t, x.Failed, "%s %s", s.Name, p.Name)
		}
	}
}
