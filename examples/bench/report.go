// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// example is the setup at which configurations are recorded.
var example = Setup{
	HTTP: "127.0.0.1:8080", TLS: "127.0.0.1:8443", TCP: "127.0.0.1:9000",
	Servers: []string{"127.0.0.1:8081", "127.0.0.2:8081"},
	Cores:   1, Conns: 2000, Idle: 512,
	Cert: "cert.pem", Key: "key.pem", Both: "both.pem", Dir: ".",
}

// configure records the configurations and commands of the peers that take part.
func (r *Record) configure(all []*Installed) error {
	r.Commands, r.Configs = map[string]string{}, map[string]string{}
	for _, in := range all {
		s := example
		if !in.TCP {
			s.TCP = ""
		}
		if in.Stream != "" {
			s.Stream = "modules/" + filepath.Base(in.Stream)
		}
		args, err := s.Args(in.Args)
		if err != nil {
			return err
		}
		r.Commands[in.Name] = strings.Join(append([]string{in.Name}, args...), " ")
		for _, file := range in.Files {
			text, err := s.Render(file)
			if err != nil {
				return err
			}
			if strings.TrimSpace(text) != "" {
				r.Configs[file] = text
			}
		}
	}
	return nil
}

// draw writes the record and all reports into a folder.
func (r *Record) draw(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "configs"), 0o755); err != nil {
		return err
	}
	if err := r.write(filepath.Join(dir, "record.json")); err != nil {
		return err
	}
	for file, text := range r.reports() {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// reports returns what is drawn from the record, by file.
func (r *Record) reports() map[string]string {
	all := map[string]string{}
	for file, text := range r.Configs {
		all["configs/"+file] = text
	}
	if p := r.panels(); len(p) > 0 {
		all["cpu.svg"] = drawPanels("CPU time and memory: lower is better", p)
	}
	for _, m := range modes {
		if l := r.lines(m); l != nil {
			all[m.Name+".svg"] = l.draw()
		}
	}
	all["README.md"] = r.markdown()
	return all
}

// shown are the scenarios of the picture; those of mode "idle" show memory.
var shown = []string{"http-small", "http-close", "tls-small", "h2-small", "tcp-small", "http-idle"}

func (r *Record) panels() (panels []Panel) {
	for _, name := range shown {
		p := Panel{Title: "An idle connection", Unit: "KiB"}
		mode, value := "idle", func(x *Result) float64 { return x.Memory / 1024 }
		if s, ok := scenario(name); ok {
			p.Title, p.Unit, mode = s.Title, "µs of CPU per "+s.Unit, "peers"
			value = func(x *Result) float64 { return x.CPU }
		}
		found := false
		for _, peer := range r.took() {
			v := 0.0
			if x := r.of(mode, name, 0, peer.Name); x != nil {
				v, found = value(x), true
			}
			p.Peers, p.Values = append(p.Peers, peer.Name), append(p.Values, v)
		}
		if found {
			panels = append(panels, p)
		}
	}
	return panels
}

// lines returns the chart of a mode with sizes, nil if there are fewer than two.
func (r *Record) lines(m Mode) *Lines {
	sizes := r.sizes(m.Name)
	if m.Of == "" || len(m.Works) != 1 || len(sizes) < 2 {
		return nil
	}
	l := &Lines{Title: m.Title, X: m.Of, Y: "µs of CPU per request", Sizes: sizes}
	for _, peer := range r.took() {
		values := make([]float64, len(sizes))
		for i, size := range sizes {
			if x := r.of(m.Name, m.Works[0], size, peer.Name); x != nil {
				values[i] = x.CPU
			}
		}
		l.Peers, l.Values = append(l.Peers, peer.Name), append(l.Values, values)
	}
	return l
}

// markdown is the report in words and tables.
func (r *Record) markdown() string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "# penstock beside other load balancers\n\n%s\n\n", r.measured())
	for _, p := range r.took() {
		if p.Name == peers[0].Name {
			fmt.Fprintf(b, "penstock is examples/proxy at %s, built with its profile (default.pgo), as go build does it; so is `httputil`. With routes penstock is examples/bench/routes, which has no profile.\n\n", p.Version)
		}
	}
	fmt.Fprintf(b, "Each peer does the same work on one processor, by turns with the others; clients (%s) and origin (%s) have another one. "+
		"A figure is the median of %d rounds of %s s (by size: of %d, longer ones if there is much to connect). CPU time is that of all processes of a peer, in user mode and in the kernel, for each unit of work. "+
		"In brackets: the CPU time shown, divided by that of %s in the same row.\n\n",
		r.Load, r.Origin, r.Rounds, fmt.Sprint(r.Seconds), r.Sized, title(peers[0].Name))
	for _, p := range r.Peers {
		if p.Missing != "" {
			fmt.Fprintf(b, "Not measured: %s (%s).\n\n", title(p.Name), p.Missing)
		}
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(b, "Not measured: %s.\n\n", s)
	}
	if len(r.panels()) > 0 {
		b.WriteString("![CPU time and memory of each load balancer, as in the table](cpu.svg)\n\n")
	}
	if len(r.panels()) > 0 {
		b.WriteString(r.short())
	}
	r.details(b)
	for _, m := range modes {
		r.scaling(b, m)
	}
	b.WriteString("## Configurations\n\nEvery peer was set for speed: connections to servers are kept, accepting is deferred, nothing is logged.\n\n")
	for _, name := range slices.Sorted(maps.Keys(r.Commands)) {
		fmt.Fprintf(b, "    %s\n", r.Commands[name])
	}
	for _, file := range slices.Sorted(maps.Keys(r.Configs)) {
		fmt.Fprintf(b, "\n[%s](configs/%s)\n", file, file)
	}
	return b.String()
}

// measured says when and where, in one line.
func (r *Record) measured() string {
	text := fmt.Sprintf("Measured on %s on %d processors (%s) with Linux %s.", r.Date, r.Machine.Processors, r.Machine.CPU, r.Machine.Kernel)
	return strings.TrimSpace(text + " " + r.Note)
}

// header begins a table of peers.
func (r *Record) header(b *strings.Builder, first string) {
	fmt.Fprintf(b, "| %s |", first)
	for _, p := range r.took() {
		if name := title(p.Name); p.Name == peers[0].Name {
			fmt.Fprintf(b, " %s |", name) // its version is long
		} else {
			fmt.Fprintf(b, " %s %s |", name, p.Version)
		}
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---|", len(r.took())))
}

// row writes what value returns for the result of each peer, "-" if there is none.
func (r *Record) row(b *strings.Builder, name, mode, scenario string, size int, value func(*Result) string) {
	fmt.Fprintf(b, "| %s |", name)
	for _, p := range r.took() {
		text := "-"
		if x := r.of(mode, scenario, size, p.Name); x != nil {
			text = value(x)
		}
		fmt.Fprintf(b, " %s |", text)
	}
	b.WriteByte('\n')
}

// short is the table that the README of the repository shows too.
func (r *Record) short() string {
	b := new(strings.Builder)
	r.header(b, "CPU time, µs")
	for _, s := range scenarios {
		if r.has("peers", s.Name) {
			r.row(b, s.Title, "peers", s.Name, 0, r.cost)
		}
	}
	for _, front := range []Front{HTTP, TLS} {
		if name := string(front) + "-idle"; r.has("idle", name) {
			r.row(b, "Memory of an idle "+strings.ToUpper(string(front))+" connection, KiB", "idle", name, 0, func(x *Result) string { return number3(x.Memory / 1024) })
		}
	}
	return b.String() + "\n"
}

// has reports whether any peer has a result of that scenario.
func (r *Record) has(mode, scenario string) bool {
	return slices.ContainsFunc(r.Results, func(x Result) bool { return x.Mode == mode && x.Scenario == scenario })
}

// cost is the CPU time, and how many times that of penstock it is: the quotient of the two
// figures as they are shown, so that a reader who divides them finds the same.
func (r *Record) cost(x *Result) string {
	text := number3(x.CPU)
	first := r.of(x.Mode, x.Scenario, x.Size, peers[0].Name)
	if first != nil && first.Peer != x.Peer && asShown(first.CPU) > 0 {
		text += fmt.Sprintf(" (%s×)", number3(asShown(x.CPU)/asShown(first.CPU)))
	}
	return text + failures(x.Failed)
}

// asShown rounds v as number3 does.
func asShown(v float64) float64 {
	v, _ = strconv.ParseFloat(number3(v), 64) // "-" is 0
	return v
}

// timed reports whether there are latencies. A record may be without, if they
// tell of the state of its machine alone.
func (r *Record) timed() bool {
	return slices.ContainsFunc(r.Results, func(x Result) bool { return x.P99 > 0 })
}

// details are the other figures of mode "peers".
func (r *Record) details(b *strings.Builder) {
	if len(r.sizes("peers")) == 0 {
		return
	}
	for _, t := range []struct {
		title, first string
		value        func(*Result) string
	}{
		{"Latency", "99 of 100 replies within, ms", func(x *Result) string { return number3(x.P99) }},
		{"Throughput", "units of work a second", func(x *Result) string { return fmt.Sprintf("%.0f", x.Rate) }},
		{"Memory", "after the rounds, MiB", func(x *Result) string { return number3(x.Memory / (1 << 20)) }},
		{"Spread", "CPU time of the best and the worst round, µs", func(x *Result) string { return number3(x.Low) + " to " + number3(x.High) }},
	} {
		if t.title == "Latency" && !r.timed() {
			continue
		}
		fmt.Fprintf(b, "## %s\n\n", t.title)
		if t.title == "Latency" {
			b.WriteString("Each connection asks again as soon as it has its reply, so that the peer, or the processor of clients and origin, is always busy: these are latencies under full load.\n\n")
		}
		r.header(b, t.first)
		for _, s := range scenarios {
			if r.has("peers", s.Name) {
				r.row(b, s.Title, "peers", s.Name, 0, t.value)
			}
		}
		b.WriteByte('\n')
	}
}

// scaling is the part of a mode with sizes.
func (r *Record) scaling(b *strings.Builder, m Mode) {
	sizes := r.sizes(m.Name)
	if m.Of == "" || len(sizes) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n", m.Title)
	if r.lines(m) != nil {
		fmt.Fprintf(b, "![CPU time by the number of %s](%s.svg)\n\n", m.Of, m.Name)
	}
	for _, work := range m.Works {
		s, _ := scenario(work)
		for _, t := range []struct {
			unit  string
			value func(*Result) string
		}{
			{"CPU time, µs", r.cost},
			{s.Unit + "s a second", func(x *Result) string { return fmt.Sprintf("%.0f", x.Rate) }},
			{"p99, ms", func(x *Result) string { return number3(x.P99) }},
			{"memory, MiB", func(x *Result) string { return number3(x.Memory / (1 << 20)) }},
		} {
			if t.unit == "p99, ms" && !r.timed() {
				continue
			}
			r.header(b, s.Title+": "+t.unit)
			for _, size := range sizes {
				r.row(b, fmt.Sprintf("%d %s", size, m.Of), m.Name, work, size, t.value)
			}
			b.WriteByte('\n')
		}
	}
}
