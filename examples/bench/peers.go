// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

const module = "github.com/penstock-lb/penstock"

// A Peer is a program that is measured.
type Peer struct {
	Name    string
	Title   string   // in reports
	Program string   // found in PATH; empty means that Package is built
	Package string   // of this module
	Routes  string   // the package to build instead if there are routes; empty means Package
	Version []string // arguments that print the version of Program
	Files   []string // of folder peers; all are written to the folder where it runs
	Args    string   // a template, filled by a Setup
	TCP     bool     // it can relay bytes
}

// peers are all that a run knows, the first one is ours.
var peers = []Peer{
	{
		Name: "penstock", Title: "penstock", Package: "/examples/proxy", Routes: "/examples/bench/routes", TCP: true,
		Args: `-http {{.HTTP}} {{if .Routes}}-routes {{.Routes}}{{else -}}
			-tls {{.TLS}} -cert {{.Cert}} -key {{.Key}} -tcp {{.TCP}} -balance roundrobin -check-interval 0{{end -}}
			{{range .Servers}} -to {{.}}{{end}}`,
	},
	{
		Name: "haproxy", Title: "HAProxy", Program: "haproxy", Version: []string{"-v"}, TCP: true,
		Files: []string{"haproxy.cfg", "haproxy.map"}, Args: "-db -f {{.Dir}}/haproxy.cfg",
	},
	{
		Name: "nginx", Title: "nginx", Program: "nginx", Version: []string{"-v"}, TCP: true,
		Files: []string{"nginx.conf"}, Args: "-p {{.Dir}} -e {{.Dir}}/error.log -c {{.Dir}}/nginx.conf",
	},
	{
		Name: "caddy", Title: "Caddy", Program: "caddy", Version: []string{"version"},
		Files: []string{"Caddyfile"}, Args: "run --adapter caddyfile --config {{.Dir}}/Caddyfile",
	},
	{
		Name: "httputil", Title: "`httputil`", Package: "/examples/bench/httputil",
		Args: `-http {{.HTTP}} -tls {{.TLS}} -cert {{.Cert}} -key {{.Key}} -idle {{.Idle}} -routes {{.Routes}}{{range .Servers}} -to {{.}}{{end}}`,
	},
}

// An Installed is a peer that can run here.
type Installed struct {
	Peer

	Path   string // of its program
	Number string // its version
	Stream string // for nginx: as in Setup
	routes string // path of the program for routes; empty means Path
}

var (
	number       = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)
	modulesPath  = regexp.MustCompile(`--modules-path=(\S+)`)
	staticStream = regexp.MustCompile(`--with-stream(\s|$)`)
)

// find looks for the program of p, or builds it in folder dir. An error says why it
// cannot take part.
func (p Peer) find(ctx context.Context, dir string) (*Installed, error) {
	in := &Installed{Peer: p}
	if p.Program == "" {
		in.Path = filepath.Join(dir, p.Name)
		in.Number = strings.TrimPrefix(runtime.Version(), "go")
		if p.Name == "penstock" {
			in.Number = revision()
		}
		if p.Routes != "" {
			in.routes = in.Path + "-routes"
			if err := build(ctx, in.routes, p.Routes); err != nil {
				return nil, err
			}
		}
		return in, build(ctx, in.Path, p.Package)
	}
	path, err := exec.LookPath(p.Program)
	if err != nil {
		return nil, errors.New("not installed")
	}
	in.Path = path
	out, err := exec.Command(path, p.Version...).CombinedOutput()
	if err != nil {
		return nil, errors.New("does not run: " + firstLine(out))
	}
	if in.Number = number.FindString(string(out)); in.Number == "" { // a program of Go may not know its own
		if info, err := buildinfo.ReadFile(path); err == nil {
			in.Number = strings.TrimPrefix(info.Main.Version, "v")
		}
	}
	if p.Name == "nginx" {
		out, _ := exec.Command(path, "-V").CombinedOutput()
		in.TCP, in.Stream = streamOf(string(out), func(file string) bool { _, err := os.Stat(file); return err == nil })
	}
	return in, nil
}

// streamOf reads the output of nginx -V: whether there is a stream module, and the file
// that it must be loaded from, if it is not built in.
func streamOf(version string, exists func(string) bool) (ok bool, load string) {
	if staticStream.MatchString(version) {
		return true, ""
	}
	if m := modulesPath.FindStringSubmatch(version); m != nil {
		if file := m[1] + "/ngx_stream_module.so"; exists(file) {
			return true, file
		}
	}
	return false, ""
}

// build makes the program file of a package of this module.
func build(ctx context.Context, file, pkg string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-o", file, module+pkg).CombinedOutput()
	if err != nil {
		return errors.New("go build (run it inside the module): " + firstLine(out))
	}
	return nil
}

// revision names the last change of what is measured.
func revision() string {
	out, err := exec.Command("git", "log", "-1", "--format=%h", "--abbrev=10", "--",
		":/balance", ":/health", ":/ratelimit", ":/l4", ":/l7", ":/examples/proxy").Output()
	if text := strings.TrimSpace(string(out)); err == nil && text != "" {
		return text
	}
	return "devel"
}

func firstLine(text []byte) string {
	for line := range strings.Lines(strings.TrimSpace(string(text))) {
		if !strings.HasPrefix(line, "[NOTICE]") { // what HAProxy says before
			return strings.TrimSpace(line)
		}
	}
	return ""
}
