// SPDX-License-Identifier: Apache-2.0

// Bench measures penstock (examples/proxy) beside HAProxy, nginx, Caddy and
// httputil.ReverseProxy on your machine, and draws what it has found. It needs Linux.
// What of the four is not in PATH is left out; so are wrk and h2load, whose work it then
// does itself.
//
//	go run ./examples/bench                            all of it, a quarter of an hour
//	go run ./examples/bench -quick                     a few seconds, to see that it works
//	go run ./examples/bench -run peers,idle -out mine  some of it
//	go run ./examples/bench -draw mine/record.json     the pictures again, without a run
//
// Peers run on the last processors, clients and origin on the others, by turns: A B C, C B
// A. The figure is the CPU time of a peer's processes for a unit of work, user and
// system, so that it holds on a machine that does other things as well; chrt -f 5 keeps
// those out of the way. Every peer is set for speed, by the files in folder peers.
//
// What it has found on one machine is in folder results. Command floor, beside it, is the
// least that a Go program does for HTTP/2 over TLS, to tell what could still be gained.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// command runs what the arguments say. "load" and "origin" are for bench itself, which
// starts them on the processors that it wants.
func command(ctx context.Context, args []string, out, stderr io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "load":
		var j Job
		if err := json.Unmarshal([]byte(args[1]), &j); err != nil {
			return err
		}
		a, err := j.run(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(a)
	case len(args) > 1 && args[0] == "origin":
		return serveOrigin(args[1:])
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if o.draw != "" {
		r, err := readRecord(o.draw)
		if err != nil {
			return err
		}
		return r.draw(o.out)
	}
	return o.run(ctx, out)
}

// Options are what the command line says.
type Options struct {
	out, draw, note string
	modes, only     []string
	rounds, sized   int
	idle            int
	seconds         float64
	quick, own      bool
}

func parseOptions(args []string, stderr io.Writer) (*Options, error) {
	o := new(Options)
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.out, "out", "bench-results", "`FOLDER` for README.md, record.json and the pictures")
	f.StringVar(&o.draw, "draw", "", "measure nothing, draw this record.json `FILE`")
	f.StringVar(&o.note, "note", "", "a `SENTENCE` on the machine for the report")
	run := f.String("run", "all", "`MODES`: all, or some of "+strings.Join(modeNames(), ","))
	only := f.String("peers", "all", "`NAMES`: all, or some of "+strings.Join(peerNames(), ","))
	f.IntVar(&o.rounds, "rounds", 5, "`NUMBER` of rounds, of which the median counts")
	f.IntVar(&o.sized, "sized", 3, "`NUMBER` of rounds of a mode with sizes")
	f.Float64Var(&o.seconds, "seconds", 1, "`LENGTH` of a round; wrk and h2load take whole seconds")
	f.IntVar(&o.idle, "idle", 2000, "`NUMBER` of idle connections")
	f.BoolVar(&o.quick, "quick", false, "a round of a fifth of a second of each of "+strings.Join(quickly, ", ")+", 50 idle connections, and of sizes the first")
	f.BoolVar(&o.own, "own", false, "use the load generator of bench even if wrk and h2load are installed")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if o.modes, err = some("-run", *run, modeNames()); err != nil {
		return nil, err
	}
	if o.only, err = some("-peers", *only, peerNames()); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.sized < 1 || o.seconds <= 0 || o.idle < 1:
		return nil, errors.New("-rounds, -sized, -seconds and -idle must be positive")
	case o.quick:
		o.rounds, o.sized, o.seconds, o.idle, o.own = 1, 1, 0.2, 50, true
		if *run == "all" {
			o.modes = []string{"peers", "idle"}
		}
	}
	return o, nil
}

// some reads a list of names, or "all".
func some(name, value string, known []string) ([]string, error) {
	if value == "all" {
		return known, nil
	}
	list := strings.Split(value, ",")
	for _, x := range list {
		if !slices.Contains(known, x) {
			return nil, fmt.Errorf("%s %q: want all, or some of %s", name, x, strings.Join(known, ","))
		}
	}
	return list, nil
}

func modeNames() (names []string) {
	for _, m := range modes {
		names = append(names, m.Name)
	}
	return names
}

func peerNames() (names []string) {
	for _, p := range peers {
		names = append(names, p.Name)
	}
	return names
}

// run measures.
func (o *Options) run(ctx context.Context, out io.Writer) error {
	cpus, err := processors()
	if err != nil {
		return err
	}
	dir, err := newDir(os.TempDir(), "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &Bench{Modes: o.modes, Rounds: o.rounds, Sized: o.sized, Seconds: o.seconds, Idle: o.idle, CPUs: cpus, Dir: dir, Folder: o.out, Out: out}
	b.Record = &Record{Date: time.Now().Format(time.DateOnly), Machine: machine(), Note: o.note, Rounds: o.rounds, Sized: o.sized, Seconds: o.seconds}
	if o.quick {
		b.Works, b.Short = quickly, true
	}
	if err := b.find(ctx, o); err != nil {
		return err
	}
	if err := b.Run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s/README.md has it all\n", o.out)
	return nil
}

// find looks for the programs, and records what it has found.
func (b *Bench) find(ctx context.Context, o *Options) error {
	var err error
	_, off := split(b.CPUs, 1)
	if b.Tools, err = findTools(o.own, b.Dir, off); err != nil {
		return err
	}
	b.Origin, _ = exec.LookPath("nginx")
	b.Record.Load, b.Record.Origin = b.Tools.String(), "the origin of bench, in net/http"
	for _, p := range peers {
		if !slices.Contains(o.only, p.Name) {
			continue
		}
		in, err := p.find(ctx, b.Dir)
		if err != nil {
			if p.Program == "" {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			fmt.Fprintf(b.Out, "%s: %v\n", p.Name, err)
			b.Record.Peers = append(b.Record.Peers, Taking{Name: p.Name, Missing: err.Error()})
			continue
		}
		if p.Name == "nginx" {
			b.Record.Origin = "nginx " + in.Number
		}
		b.Peers = append(b.Peers, in)
		b.Record.Peers = append(b.Record.Peers, Taking{Name: p.Name, Version: in.Number})
	}
	return b.Record.configure(b.Peers)
}
