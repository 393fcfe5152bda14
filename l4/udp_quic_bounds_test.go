// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestQUICBounds: what does not begin a connection holds nothing, and what begins one and
// goes on without a word holds little, and not for long.
func TestQUICBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, servers := routed(t, "a.test", "rest")
		r := startQUIC(t, p, servers)
		hello := quicHelloOf(t, "a.test", "h3")
		whole := string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, len(hello))))
		for name, b := range map[string]string{
			"empty": "", "small": string(quicInitialPacket(t, quicV1, "client-1", 0, quicCryptoFrame(hello, 0, 100))),
			"long id":     "\xc0\x00\x00\x00\x01\x15" + strings.Repeat("x", 1400),
			"negotiation": "\xc0\x00\x00\x00\x00\x08client-1" + strings.Repeat("\x00", 1400),
			"retry":       quicLong(quicRetry, "client-1", "cli", "token"),
			"cut":         "\xc0\x00\x00",
		} {
			r.send(homeAddr, b)
			synctest.Wait()
			require.Zero(t, r.p.Flows(), name)
		}
		require.EqualValues(t, 6, r.p.Dropped())
		r.send(homeAddr, whole[:len(whole)-1]+string([]byte{whole[len(whole)-1] ^ 1}))
		synctest.Wait()
		require.Zero(t, r.p.Flows(), "it cannot be read")
		require.Contains(t, <-r.records, " 0 PR ")
		require.Empty(t, r.dials)

		// Half a ClientHello, and no more.
		start := time.Now()
		r.send(homeAddr, string(quicInitialOf(t, "client-1", 0, quicCryptoFrame(hello, 0, 100))))
		synctest.Wait()
		require.Equal(t, 1, r.p.Flows())
		require.Zero(t, r.p.Pool.Server("10.0.0.2:443").InFlight())
		synctest.Wait()
		r.wantNone(t)
		require.Contains(t, <-r.records, " 0 PR ")
		require.Equal(t, defaultPeekTimeout, time.Since(start))
		require.Empty(t, r.dials, "not to the rest: what was lost may have named another")
		require.Zero(t, r.p.kept.Load())
		r.send(homeAddr, whole) // again, as a client does
		r.wantReply(t, homeAddr, "a.test")
		require.Contains(t, <-r.records, "10.0.0.1:443 1 -- ")
		require.Equal(t, defaultPeekTimeout+quicUnheardIdle, time.Since(start))

		// More of it than is kept.
		for number := range byte(20) {
			r.send(homeAddr, string(quicInitialOf(t, "client-1", number, quicCryptoFrame(hello, 0, 100))))
			if number == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		for r.p.Flows() > 0 { // the last ones may have begun another
			time.Sleep(time.Second)
			synctest.Wait()
		}
		require.Contains(t, <-r.records, " 0 PR ")
		require.Zero(t, r.p.kept.Load())
		for len(r.out) > 0 {
			<-r.out
		}
		for len(r.records) > 0 {
			<-r.records
		}

		require.Empty(t, r.p.state.quic.flows)
		r.stop(t)
	})
}

// TestQUICHeard: a flow ends early unless its client shows that replies reach it.
func TestQUICHeard(t *testing.T) {
	for name, at := range map[string]struct {
		send string // after the reply
		want time.Duration
	}{
		"silence":          {"", quicUnheardIdle},
		"made up":          {quicShortTo("made-up", ""), quicUnheardIdle},
		"its own id":       {quicLong(quicHandshake, "client-1", "cli", ""), quicUnheardIdle},
		"the server's id":  {quicShortTo("srv-1-a", ""), time.Minute},
		"in the handshake": {quicLong(quicHandshake, "srv-1-a", "cli", ""), time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := startQUIC(t, &UDPProxy{QUIC: &QUIC{}}, map[string]func(b []byte) ([]string, error){
				"10.0.0.1:443": quicServer("one", "srv-1-a")})
			r.connectQUIC(t, homeAddr, "client-1", "one")
			if at.send != "" {
				r.send(homeAddr, at.send)
				r.wantReply(t, homeAddr, "")
			}
			start := time.Now()
			<-r.records
			require.Equal(t, at.want, time.Since(start), name)
			r.stop(t)
		})
	}
}
