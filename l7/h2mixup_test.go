// SPDX-License-Identifier: Apache-2.0

package l7_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l4/l4test"
	"github.com/penstock-lb/penstock/l7"
)

// mixed is the body that belongs to a token, from offset on.
func mixed(token string, offset, n int) []byte {
	unit := token + "."
	at := offset % len(unit)
	return []byte(strings.Repeat(unit, n/len(unit)+2)[at : at+n])
}

// TestHTTP2MixUp has thousands of streams carry tokens of their own through a
// gateway, both ways, while clients and servers reset streams at every phase, break
// the protocol, and cut connections. Nobody may get a byte of another's, and nothing
// may be left in the end: the bubble sees goroutines, the pool leases.
// It plays two rounds, and with PENSTOCK_CHAOS as many as begin in that time, at least
// two, each of a random seed.
func TestHTTP2MixUp(t *testing.T) {
	began := time.Now()
	chaos, err := time.ParseDuration(os.Getenv("PENSTOCK_CHAOS"))
	for round := 0; round < 2 || time.Since(began) < chaos; round++ {
		seed := uint64(round)
		if err == nil {
			seed = rand.Uint64()
		}
		synctest.Test(t, func(t *testing.T) { mixUp(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func mixUp(t *testing.T, seed uint64) {
	pool := newPool(one, two, "10.0.0.3:80", "10.0.0.4:80")
	up := &l7.Upstream{ProtocolsOf: func(s *balance.Server) *http.Protocols {
		if s.Name() == "10.0.0.4:80" {
			return protocols("1")
		}
		return protocols("h2c")
	}}
	var m mixer
	byteFront(t, func(n *l4test.Network) http.Handler {
		up.Dial = n.DialContext
		return &l7.Proxy{Pool: pool, Upstream: up, Timeout: time.Minute}
	}, new(l7.Server), func(t *testing.T, f *front) {
		startOrigin(t, f.network, one, nil, true, m.handler(t, seed))
		startOrigin(t, f.network, two, nil, true, m.handler(t, seed+1))
		serveOrigin(t, f.network, "10.0.0.3:80", func(c *l4test.Conn, br *bufio.Reader) { m.hostileServer(t, c, br) })
		startOrigin(t, f.network, "10.0.0.4:80", nil, false, m.handler(t, seed+2))
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(i)))
				for range 6 { // connections, one after another
					m.client(t, f.network, rnd, fmt.Sprintf("%d-%d", seed, i))
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		time.Sleep(2 * time.Minute) // longer than every limit
		synctest.Wait()
		for s := range pool.All() {
			if n := s.InFlight(); n != 0 {
				t.Errorf("%s has %d in flight", s.Name(), n)
			}
		}
		up.CloseIdle()
	})
	if m.whole.Load() < 500 {
		t.Errorf("only %d of %d streams came through whole", m.whole.Load(), m.begun.Load())
	}
	t.Logf("%d streams, %d whole, %d reset by us, %d by the gateway, %d refused", m.begun.Load(), m.whole.Load(), m.ours.Load(), m.resets.Load(), m.refused.Load())
}

type mixer struct {
	begun, whole, ours, resets, refused atomic.Int64
}

// handler answers with as much of the token as is asked for, once the body has
// turned out to be the token's, and breaks off now and then.
func (m *mixer) handler(t *testing.T, seed uint64) http.HandlerFunc {
	var n atomic.Uint64
	return func(w http.ResponseWriter, r *http.Request) {
		rnd := rand.New(rand.NewPCG(seed, n.Add(1)))
		token := r.Header.Get("X-Token")
		fate := rnd.IntN(20)
		if fate == 0 {
			panic(http.ErrAbortHandler)
		}
		got, buf := 0, make([]byte, 16<<10)
		for {
			k, err := r.Body.Read(buf)
			if !bytes.Equal(buf[:k], mixed(token, got, k)) {
				t.Errorf("the server got, for %s, a body that is not its own", token)
			}
			if got += k; fate == 1 && got > 10_000 {
				panic(http.ErrAbortHandler)
			}
			if err != nil {
				break
			}
		}
		size, _ := strconv.Atoi(r.Header.Get("X-Size"))
		w.Header().Set("X-Token", token)
		if fate > 10 {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		for sent := 0; sent < size; {
			k := min(size-sent, 1+rnd.IntN(40_000))
			if _, err := w.Write(mixed(token, sent, k)); err != nil {
				return
			}
			if sent += k; fate == 2 && sent > size/2 {
				panic(http.ErrAbortHandler)
			}
			if rnd.IntN(4) == 0 {
				_ = http.NewResponseController(w).Flush()
			}
		}
		w.Header().Set(http.TrailerPrefix+"X-Token", token)
	}
}

// hostileServer speaks HTTP/2 and does what it should not.
func (m *mixer) hostileServer(t *testing.T, c *l4test.Conn, br *bufio.Reader) {
	io.ReadFull(br, make([]byte, len(http2.ClientPreface)))
	fr := http2.NewFramer(c, br)
	fr.AllowIllegalWrites = true
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 60}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	fr.WriteWindowUpdate(0, 1<<30)
	rnd := rand.New(rand.NewPCG(uint64(c.LocalAddr().(*net.TCPAddr).Port), 7))
	type request struct {
		token string
		size  int
		got   int
	}
	open := map[uint32]*request{}
	var out bytes.Buffer
	enc := hpack.NewEncoder(&out)
	head := func(id uint32, end bool, fields ...string) {
		out.Reset()
		for i := 0; i < len(fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: out.Bytes(), EndHeaders: true, EndStream: end})
	}
	answer := func(id uint32, r *request) bool {
		switch rnd.IntN(16) {
		case 0:
			fr.WriteRSTStream(id, http2.ErrCodeRefusedStream)
			return true
		case 1:
			fr.WriteRSTStream(id, http2.ErrCodeInternal)
			return true
		case 2:
			head(id, false, ":status", "103", "x-token", r.token)
			fr.WriteRSTStream(id, http2.ErrCodeCancel)
			return true
		case 3:
			fr.WriteGoAway(id-min(id, 2), http2.ErrCodeNo, nil)
			return rnd.IntN(2) == 0
		case 4:
			return false // cut
		case 5:
			head(id, true, ":status", "101")
			return true
		case 6:
			fr.WriteData(id, true, mixed(r.token, 0, 100)) // before the head
			return true
		}
		size := min(r.size, 50_000)
		head(id, size == 0, ":status", "200", "x-token", r.token)
		for sent := 0; sent < size; {
			k := min(size-sent, 1+rnd.IntN(16_000))
			fr.WriteData(id, sent+k == size, mixed(r.token, sent, k))
			if sent += k; rnd.IntN(20) == 0 {
				fr.WriteRSTStream(id, http2.ErrCodeInternal)
				return true
			}
			if rnd.IntN(50) == 0 && id > 2 {
				fr.WriteData(id-2, false, []byte("nobody's")) // most are closed
			}
		}
		return true
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				fr.WritePing(true, f.Data)
			}
		case *http2.RSTStreamFrame:
			delete(open, id)
		case *http2.DataFrame:
			r := open[id]
			if r == nil {
				break
			}
			if p := f.Data(); !bytes.Equal(p, mixed(r.token, r.got, len(p))) {
				t.Errorf("the hostile server got, for %s, a body that is not its own", r.token)
			}
			if r.got += len(f.Data()); !f.StreamEnded() && (r.got < 30_000 || rnd.IntN(8) > 0) {
				break
			}
			delete(open, id)
			if !answer(id, r) {
				return
			}
		case *http2.MetaHeadersFrame:
			r := &request{}
			for _, hf := range f.Fields {
				switch hf.Name {
				case "x-token":
					r.token = hf.Value
				case "x-size":
					r.size, _ = strconv.Atoi(hf.Value)
				}
			}
			if open[id] = r; f.StreamEnded() || rnd.IntN(20) == 0 {
				delete(open, id)
				if !answer(id, r) {
					return
				}
			}
		}
	}
}
