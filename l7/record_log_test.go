// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/l4"
)

func loggedRecord() *Record {
	return &Record{
		Start:  time.Date(2026, 2, 6, 12, 14, 14, 655e6, time.FixedZone("", 3600)),
		Remote: netip.MustParseAddrPort("192.0.2.1:33317"),
		Method: "GET", Host: "a.example", Path: "/a", Query: "?b=c", Proto: "HTTP/1.1", User: "alice",
		Status: 200, Pool: "static", Server: "srv1", Tries: 2, BytesOut: 2750,
		Assigned: 10 * time.Millisecond, Connected: 40 * time.Millisecond, FirstByte: 109 * time.Millisecond, Total: 110 * time.Millisecond,
		Captured: []Captured{{"host", "a.example", false}, {"User-Agent", "curl/8", false}, {"Server", "x", true}},
	}
}

func TestRecordAsLine(t *testing.T) {
	r := loggedRecord()
	require.Equal(t, `192.0.2.1 - alice [06/Feb/2026:12:14:14 +0100] "GET /a?b=c HTTP/1.1" 200 2750`, string(r.AppendCLF(nil)))
	require.Equal(t, `192.0.2.1 - alice [06/Feb/2026:12:14:14 +0100] "GET /a?b=c HTTP/1.1" 200 2750 "-" "curl/8"`, string(r.AppendCombined(nil)))
	require.Equal(t, `192.0.2.1:33317 [06/Feb/2026:12:14:14.655] web static/srv1 0/10/30/69/110 200 2750 - - ---- 0/0/0/0/1 0/0 {a.example|curl/8} {x} "GET /a?b=c HTTP/1.1"`,
		string(r.AppendHAProxy(nil, "web")))

	r.Persisted, r.Captured = true, nil
	r.Pool, r.Server = "a b/c", "d \xff/e"
	require.Equal(t, `192.0.2.1:33317 [06/Feb/2026:12:14:14.655] web#20x a#20b#2Fc/d#20#FF#2Fe 0/10/30/69/110 200 2750 - - --V- 0/0/0/0/1 0/0 "GET /a?b=c HTTP/1.1"`,
		string(r.AppendHAProxy(nil, "web x")))

	empty := &Record{Termination: endOf(l4.ClientAborted, l4.PhaseRequest)}
	require.Equal(t, `- - - [01/Jan/0001:00:00:00 +0000] "<BADREQ>" - 0`, string(empty.AppendCLF(nil)))
	require.Equal(t, `-:0 [01/Jan/0001:00:00:00.000] web web/<NOSRV> 0/-1/-1/-1/0 -1 0 - - CR-- 0/0/0/0/0 0/0 "<BADREQ>"`, string(empty.AppendHAProxy(nil, "web")))
}

// FuzzRecordLine has what comes from outside in each place: a line stays a line, and its
// words stay theirs.
func FuzzRecordLine(f *testing.F) {
	f.Add("GET", "/a", "bob", "curl")
	f.Add("G\"T", "/\"\r\n127.0.0.1 - - [", "a b\" ]", "\\\"{|}#\x00\xff")
	f.Fuzz(func(t *testing.T, method, path, user, agent string) {
		r := loggedRecord()
		r.Method, r.Path, r.User = method, path, user
		r.Captured = []Captured{{"User-Agent", agent, false}}
		combined, haproxy := string(r.AppendCombined(nil)), string(r.AppendHAProxy(nil, "web"))
		for _, line := range []string{combined, haproxy} {
			for i := range len(line) {
				require.True(t, line[i] >= 0x20 && line[i] <= 0x7e, "%q", line)
			}
		}
		require.Equal(t, 2, strings.Count(haproxy, `"`), haproxy)
		require.Equal(t, []int{2, 2}, []int{strings.Count(haproxy, "{"), strings.Count(haproxy, "}")}, haproxy)
		unquoted := strings.ReplaceAll(strings.ReplaceAll(combined, `\\`, ""), `\"`, "")
		require.Equal(t, 6, strings.Count(unquoted, `"`), combined)
		require.Len(t, strings.Fields(combined[:strings.LastIndex(combined, " [06/Feb/2026")]), 3, combined)
	})
}

// HAProxy's own reader of its logs understands the lines.
func TestRecordReadByHalog(t *testing.T) {
	halog, err := exec.LookPath("halog")
	if err != nil {
		t.Skip("no halog here")
	}
	var log strings.Builder
	for i := range 10 {
		r := loggedRecord()
		r.Server = "srv 1/a"
		r.Persisted = i%2 == 0
		if i < 3 {
			r.Status, r.Termination = 503, endOf(l4.ServerTimeout, l4.PhaseConnect)
		}
		log.WriteString("Feb  6 12:14:14 localhost haproxy[14389]: " + string(r.AppendHAProxy(nil, "web")) + "\n")
	}
	run := func(args ...string) string {
		cmd := exec.Command(halog, args...)
		cmd.Stdin = strings.NewReader(log.String())
		out, err := cmd.Output()
		require.NoError(t, err)
		return string(out)
	}
	require.Contains(t, run("-q", "-st"), "200 7\n503 3")
	require.Contains(t, run("-q", "-tc"), "-- 7\nsC 3")
	require.Contains(t, run("-q", "-srv"), "static/srv#201#2Fa")
	require.Contains(t, run("-q", "-u"), "/a")
}

// One of ten is seen, and each that went wrong.
func TestSampleRecords(t *testing.T) {
	seen := make(map[int]int)
	hook := SampleRecords(10, func(r *Record) { seen[r.Status]++ })
	for range 100 {
		hook(&Record{Status: 200})
		hook(&Record{Status: 502})
		hook(&Record{Status: 204, Termination: endOf(l4.ServerAborted, l4.PhaseData)})
		hook(&Record{Status: 206, Termination: endOf(l4.Killed, l4.PhaseData)})
		hook(&Record{Status: 207, GRPCStatus: "14"})
	}
	require.Equal(t, map[int]int{200: 10, 502: 100, 204: 100, 206: 100, 207: 100}, seen)
	all := 0
	hook = SampleRecords(0, func(*Record) { all++ })
	hook(&Record{})
	require.Equal(t, 1, all)
	require.Panics(t, func() { SampleRecords(1, nil) })
}

func BenchmarkRecordLine(b *testing.B) {
	r, buf := loggedRecord(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendCombined(buf[:0])
	}
}
