// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"crypto/aes"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// quicHelloOf is the ClientHello of a QUIC client.
func quicHelloOf(t testing.TB, name string, alpn ...string) []byte {
	c := tls.QUICClient(&tls.QUICConfig{TLSConfig: &tls.Config{ServerName: name, NextProtos: alpn, MinVersion: tls.VersionTLS13}})
	defer c.Close()
	c.SetTransportParameters([]byte{})
	require.NoError(t, c.Start(t.Context()))
	for {
		switch e := c.NextEvent(); e.Kind {
		case tls.QUICWriteData:
			return slices.Clone(e.Data)
		case tls.QUICNoEvent:
			t.Fatal("no ClientHello")
		}
	}
}

func appendVarint(b []byte, v int) []byte {
	if v < 64 {
		return append(b, byte(v))
	}
	if v < 1<<14 {
		return binary.BigEndian.AppendUint16(b, uint16(v)|0x4000)
	}
	return binary.BigEndian.AppendUint32(b, uint32(v)|0x80000000)
}

// quicCryptoFrame is a part of a ClientHello.
func quicCryptoFrame(hello []byte, from, to int) []byte {
	b := appendVarint([]byte{quicCrypto}, from)
	b = appendVarint(b, to-from)
	return append(b, hello[from:to]...)
}

// quicInitialPacket is an Initial packet of a client.
func quicInitialPacket(t testing.TB, version uint32, dst string, number byte, frames []byte) []byte {
	keys, err := newQUICKeys(version, []byte(dst))
	require.NoError(t, err)
	for len(frames) < 3 { // or there is no sample
		frames = append(frames, quicPadding)
	}
	first := byte(0xc0)
	if version == quicV2 {
		first = 0xd0
	}
	b := binary.BigEndian.AppendUint32([]byte{first}, version)
	b = append(append(b, byte(len(dst))), dst...)
	b = append(b, 3, 'c', 'l', 'i', 0) // source, no token
	b = appendVarint(b, 1+len(frames)+16)
	header := len(b)
	b = append(b, number)
	nonce := keys.iv
	nonce[11] ^= number
	b = keys.aead.Seal(b, nonce[:], frames, b)
	var mask [aes.BlockSize]byte
	keys.header.Encrypt(mask[:], b[header+4:])
	b[0] ^= mask[0] & 0x0f
	b[header] ^= mask[1]
	return b
}

// quicInitialOf is a datagram of 1200 bytes or more with one Initial packet.
func quicInitialOf(t testing.TB, dst string, number byte, frames []byte) []byte {
	frames = append(slices.Clone(frames), make([]byte, max(0, quicInitialBytes-len(frames)-34))...)
	b := quicInitialPacket(t, quicV1, dst, number, frames)
	require.GreaterOrEqual(t, len(b), quicInitialBytes)
	return b
}

// readQUICHello reads datagrams that are padded to the size that they must have.
func readQUICHello(datagrams ...[]byte) (*ClientHello, error) {
	datagrams = slices.Clone(datagrams)
	for i, b := range datagrams {
		datagrams[i] = quicPadded(b)
	}
	return new(quicHello).read(datagrams)
}

func quicPadded(b []byte) []byte {
	return append(slices.Clone(b), make([]byte, max(0, quicInitialBytes-len(b)))...)
}

// TestQUICInitialVectors reads the packets of RFC 9001, appendix A.2, and RFC 9369, appendix
// A.2.
func TestQUICInitialVectors(t *testing.T) {
	for _, name := range []string{"rfc9001-a2", "rfc9369-a2"} {
		hello, err := readQUICHello(quicVector(t, name))
		require.NoError(t, err, name)
		require.Equal(t, "example.com", hello.ServerName)
		require.True(t, strings.HasPrefix(hello.JA4(), "q13d"), hello.JA4())
	}
}

func quicVector(t testing.TB, name string) []byte {
	text, err := os.ReadFile("testdata/quic/" + name + ".hex")
	require.NoError(t, err)
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", ""))
	require.NoError(t, err)
	require.Len(t, b, 1200)
	return b
}

// TestQUICHelloPieces: a ClientHello is the same however it is cut, ordered and repeated.
func TestQUICHelloPieces(t *testing.T) {
	hello := quicHelloOf(t, "a.test", "h3", "doq")
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var frames [][]byte
		for at := 0; at < len(hello); {
			n := min(1+rnd.IntN(400), len(hello)-at)
			frames = append(frames, quicCryptoFrame(hello, at, at+n))
			if rnd.IntN(3) == 0 { // again, with what came before
				from := rnd.IntN(at + 1)
				frames = append(frames, quicCryptoFrame(hello, from, at+n))
			}
			at += n
		}
		rnd.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		var datagrams [][]byte
		for number := byte(0); len(frames) > 0; number++ {
			var packet []byte
			for range min(1+rnd.IntN(3), len(frames)) {
				packet = append(packet, frames[0]...)
				packet = append(packet, make([]byte, rnd.IntN(3))...)
				if rnd.IntN(4) == 0 {
					packet = append(packet, quicPing)
				}
				frames = frames[1:]
			}
			p := quicInitialPacket(t, []uint32{quicV1, quicV2}[seed%2], "12345678", number, packet)
			if last := len(datagrams) - 1; last >= 0 && rnd.IntN(3) == 0 { // several packets in a datagram
				datagrams[last] = append(datagrams[last], p...)
			} else {
				datagrams = append(datagrams, p)
			}
		}
		got, err := readQUICHello(datagrams...)
		require.NoError(t, err, seed)
		require.Equal(t, "a.test", got.ServerName)
		require.Equal(t, []string{"h3", "doq"}, got.ALPN)
	}
}

func TestQUICHelloWrong(t *testing.T) {
	hello := quicHelloOf(t, "a.test", "h3")
	whole := quicInitialOf(t, "12345678", 0, quicCryptoFrame(hello, 0, len(hello)))
	half := quicInitialOf(t, "12345678", 0, quicCryptoFrame(hello, 0, len(hello)/2))
	rest := quicInitialOf(t, "12345678", 1, quicCryptoFrame(hello, len(hello)/2, len(hello)))
	strange := quicInitialOf(t, "87654321", 1, quicCryptoFrame(hello, len(hello)/2, len(hello)))
	forged := slices.Clone(rest)
	forged[len(forged)-1] ^= 1
	other := slices.Clone(hello)
	other[len(hello)-1] ^= 1
	differs := quicInitialOf(t, "12345678", 1, quicCryptoFrame(other, len(hello)/2-10, len(hello)))
	zeroRTT := append(binary.BigEndian.AppendUint32([]byte{0xd0}, quicV1), "\x0812345678\x00\x03abc"...)
	for name, at := range map[string]struct {
		datagrams [][]byte
		want      error // nil if it is read
	}{
		"nothing":                    {nil, io.ErrUnexpectedEOF},
		"whole":                      {[][]byte{whole}, nil},
		"half":                       {[][]byte{half}, io.ErrUnexpectedEOF},
		"halves":                     {[][]byte{half, rest}, nil},
		"halves, the second first":   {[][]byte{rest, half}, nil},
		"another connection between": {[][]byte{half, strange}, io.ErrUnexpectedEOF},
		"a forged packet between":    {[][]byte{half, forged}, io.ErrUnexpectedEOF},
		"a forged packet, then all":  {[][]byte{half, forged, rest}, nil},
		"a part that differs":        {[][]byte{half, rest, differs}, errQUICDiffers},
		"and before it":              {[][]byte{differs, half, rest}, errQUICDiffers},
		"only a forged packet":       {[][]byte{forged}, errQUICInitial},
		"early data first":           {[][]byte{zeroRTT, whole}, nil},
		"early data":                 {[][]byte{zeroRTT}, io.ErrUnexpectedEOF},
		"early data in front":        {[][]byte{append(slices.Clone(zeroRTT), whole...)}, nil},
		"cut":                        {[][]byte{whole[:600]}, errQUICInitial},
		"cut, then all":              {[][]byte{half, rest[:600], rest}, nil},
		"another version":            {[][]byte{append([]byte{0xc0, 1, 2, 3, 4}, whole[5:]...)}, errQUICVersion},
		"another version between":    {[][]byte{half, append([]byte{0xc0, 1, 2, 3, 4}, whole[5:]...), rest}, nil},
		"another message": {[][]byte{quicInitialOf(t, "12345678", 0, quicCryptoFrame([]byte("\x02\x00\x00\x01x"), 0, 5))},
			ErrClientHello},
		"beyond the end": {[][]byte{quicInitialOf(t, "12345678", 0, append(appendVarint([]byte{quicCrypto}, udpKeep-1), 2, 'x', 'x'))},
			io.ErrUnexpectedEOF},
		"a frame of later": {[][]byte{quicInitialOf(t, "12345678", 0, append([]byte{0x1c}, quicCryptoFrame(hello, 0, len(hello))...))},
			io.ErrUnexpectedEOF},
	} {
		got, err := readQUICHello(at.datagrams...)
		if at.want != nil {
			require.ErrorIs(t, err, at.want, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, "a.test", got.ServerName, name)
	}
}

// TestQUICHelloSmall: a server discards an Initial packet in a datagram of less than 1200
// bytes, so what it says does not count.
func TestQUICHelloSmall(t *testing.T) {
	hello := quicHelloOf(t, "a.test", "h3")
	half := len(hello) / 2
	one, two := quicInitialOf(t, "12345678", 0, quicCryptoFrame(hello, 0, half)), quicInitialPacket(t, quicV1, "12345678", 1, quicCryptoFrame(hello, half, len(hello)))
	require.Greater(t, quicInitialBytes, len(two))
	for more := range 2 {
		two = append(two, make([]byte, quicInitialBytes-1+more-len(two))...)
		_, err := new(quicHello).read([][]byte{one, two})
		if more == 0 {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		} else {
			require.NoError(t, err)
		}
	}
}

// FuzzQUICHello: no datagrams make it panic, and what it reads once it reads again, as parts
// of what a client sends may come twice.
func FuzzQUICHello(f *testing.F) {
	f.Add(quicVector(f, "rfc9001-a2"), []byte{}, false)
	f.Add(quicVector(f, "rfc9369-a2"), []byte{0}, false)
	f.Add([]byte("\xc0\x00\x00\x00\x01\x0812345678\x00\x00\x40\x20"), []byte("\x40"), false)
	f.Add(quicCryptoFrame([]byte("\x01\x00\x00\x02xy"), 0, 6), quicCryptoFrame([]byte("\x01\x00\x00\x02xy"), 3, 6), true)
	f.Fuzz(func(t *testing.T, one, two []byte, frames bool) {
		if frames { // beneath the encryption
			one, two = quicInitialPacket(t, quicV1, "12345678", 0, slices.Clone(one)), quicInitialPacket(t, quicV2, "12345678", 1, slices.Clone(two))
		}
		one, two = quicPadded(one), quicPadded(two)
		before, before2 := slices.Clone(one), slices.Clone(two)
		q := new(quicHello)
		hello, err := q.read([][]byte{one, two})
		again, err2 := q.read([][]byte{one, two, one})
		require.Equal(t, before, one)
		require.Equal(t, before2, two)
		require.Equal(t, err == nil, err2 == nil)
		require.Equal(t, hello, again)
		if p, ok := parseQUIC(one); ok {
			require.LessOrEqual(t, len(p.dst)+len(p.src), len(one))
		}
	})
}

// BenchmarkQUICHello reads a ClientHello that came in one datagram, and one in the two that a
// key share of ML-KEM needs.
func BenchmarkQUICHello(b *testing.B) {
	hello := quicHelloOf(b, "a.test", "h3")
	half := len(hello) / 2
	for name, datagrams := range map[string][][]byte{
		"one": {quicVector(b, "rfc9001-a2")},
		"two": {quicInitialOf(b, "12345678", 0, quicCryptoFrame(hello, 0, half)), quicInitialOf(b, "12345678", 1, quicCryptoFrame(hello, half, len(hello)))},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			q := new(quicHello)
			for b.Loop() {
				if _, err := q.read(datagrams); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
