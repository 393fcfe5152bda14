// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// clientHello is the first flight of crypto/tls.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	c := &scriptConn{}
	require.Error(t, tls.Client(c, cfg).Handshake())
	return c.out.Bytes()
}

// A scriptConn reads in and then io.EOF, and keeps what is written.
type scriptConn struct {
	in  bytes.Reader
	out bytes.Buffer
}

func (c *scriptConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *scriptConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return nil }
func (c *scriptConn) RemoteAddr() net.Addr             { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// stdClientHello is what crypto/tls reads from b, the other opinion of the
// differential tests; nil if it refuses.
func stdClientHello(b []byte) (info *tls.ClientHelloInfo) {
	c := &scriptConn{}
	c.in.Reset(b)
	_ = tls.Server(c, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		info = i
		return nil, errors.New("seen enough")
	}}).HandshakeContext(context.Background())
	return info
}

// refragment cuts the handshake message in b, one record, into records of n bytes.
func refragment(b []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(b[recordHeaderBytes:], n) {
		out = append(out, recordHandshake, 3, 1)
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

func requireSameHello(t *testing.T, want *tls.ClientHelloInfo, got *ClientHello) {
	t.Helper()
	require.Equal(t, want.ServerName, got.ServerName)
	require.ElementsMatch(t, want.SupportedProtos, got.ALPN)
	require.ElementsMatch(t, want.CipherSuites, got.CipherSuites)
	require.ElementsMatch(t, want.SupportedCurves, got.Groups)
	require.ElementsMatch(t, want.SignatureSchemes, got.SignatureSchemes)
	require.ElementsMatch(t, want.Extensions, got.Extensions)
	if slices.Contains(got.Extensions, extSupportedVersions) {
		require.Equal(t, want.SupportedVersions, got.Versions)
		return
	}
	for _, v := range got.Versions { // crypto/tls lists TLS 1.3 here, and does not negotiate it
		require.Contains(t, want.SupportedVersions, v)
	}
	require.LessOrEqual(t, got.MaxVersion(), uint16(tls.VersionTLS12))
}

func TestParseClientHello(t *testing.T) {
	long := make([]string, 200)
	for i := range long {
		long[i] = strings.Repeat("p", 255)
	}
	for name, cfg := range map[string]*tls.Config{
		"usual":              {ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}},
		"no name":            {InsecureSkipVerify: true},
		"TLS 1.2 only":       {ServerName: "a.test", MaxVersion: tls.VersionTLS12},
		"TLS 1.0 only":       {ServerName: "a.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"classic key shares": {ServerName: "a.test", CurvePreferences: []tls.CurveID{tls.X25519}},
		"four records":       {ServerName: "a.test", NextProtos: long},
	} {
		t.Run(name, func(t *testing.T) {
			b := clientHello(t, cfg)
			h, err := ParseClientHello(append(bytes.Clone(b), "whatever follows"...))
			require.NoError(t, err)
			requireSameHello(t, stdClientHello(b), h)
			require.Equal(t, cfg.ServerName, h.ServerName)
			if cfg.MaxVersion != 0 {
				require.Equal(t, cfg.MaxVersion, h.MaxVersion())
			} else {
				require.EqualValues(t, tls.VersionTLS13, h.MaxVersion())
			}

			var r helloReader // goes on where it left off
			for cut := range b {
				_, err := r.read(b[:cut])
				require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut after %d of %d", cut, len(b))
			}
			msg, err := r.read(b)
			require.NoError(t, err)
			again, err := parseHello(msg)
			require.NoError(t, err)
			require.Equal(t, h, again)

			if len(b) < 1<<14 {
				for _, n := range []int{1, 2, 3, 4, 5, 100} {
					again, err := ParseClientHello(refragment(b, n))
					require.NoError(t, err)
					require.Equal(t, h, again, "in records of %d bytes", n)
				}
			}
		})
	}
}

// hello wraps extensions into a ClientHello.
func hello(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"
	body += string(binary.BigEndian.AppendUint16(nil, uint16(len(extensions)))) + extensions
	msg := "\x01\x00" + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
	return []byte("\x16\x03\x01" + string(binary.BigEndian.AppendUint16(nil, uint16(len(msg)))) + msg)
}

// TestClientHelloNames shows that a name is never read in a way the server
// behind would not read it.
func TestClientHelloNames(t *testing.T) {
	for _, tt := range []struct{ why, ext, want string }{
		{"plain", "\x00\x00\x00\x0b\x00\x09\x00\x00\x06a.test", "a.test"},
		{"case kept", "\x00\x00\x00\x0b\x00\x09\x00\x00\x06A.Test", "A.Test"},
		{"after a name of another type", "\x00\x00\x00\x0f\x00\x0d\x01\x00\x01x\x00\x00\x06a.test", "a.test"},
		{"only a name of another type", "\x00\x00\x00\x06\x00\x04\x01\x00\x01x", ""},
		{"after an unknown extension", "\xff\x01\x00\x01\x00\x00\x00\x00\x0b\x00\x09\x00\x00\x06a.test", "a.test"},
		{"none", "", ""},
	} {
		h, err := ParseClientHello(hello(tt.ext))
		require.NoError(t, err, tt.why)
		require.Equal(t, tt.want, h.ServerName, tt.why)
		require.Equal(t, tt.want, stdClientHello(hello(tt.ext)).ServerName, tt.why)
	}
	for why, ext := range map[string]string{
		"two names":              "\x00\x00\x00\x10\x00\x0e\x00\x00\x04a.aa\x00\x00\x04b.bb",
		"two extensions":         "\x00\x00\x00\x06\x00\x04\x00\x00\x01a\x00\x00\x00\x06\x00\x04\x00\x00\x01b",
		"two of a high type":     "\xff\x01\x00\x01\x00\xff\x01\x00\x01\x00",
		"trailing dot":           "\x00\x00\x00\x0c\x00\x0a\x00\x00\x07a.test.",
		"empty name":             "\x00\x00\x00\x05\x00\x03\x00\x00\x00",
		"empty list":             "\x00\x00\x00\x02\x00\x00",
		"empty extension":        "\x00\x00\x00\x00",
		"bytes after the list":   "\x00\x00\x00\x07\x00\x04\x00\x00\x01a!",
		"name beyond the list":   "\x00\x00\x00\x06\x00\x04\x00\x00\x02a",
		"extension beyond":       "\x00\x00\x00\x09\x00\x04\x00\x00\x01a",
		"half an extension type": "\x00\x00\x00\x06\x00\x04\x00\x00\x01a\x00",
		"empty ALPN list":        "\x00\x10\x00\x02\x00\x00",
		"empty ALPN protocol":    "\x00\x10\x00\x03\x00\x01\x00",
		"odd versions":           "\x00\x2b\x00\x04\x03\x03\x04\x03",
		"odd groups":             "\x00\x0a\x00\x03\x00\x01\x00",
		"odd signature schemes":  "\x00\x0d\x00\x03\x00\x01\x00",
	} {
		_, err := ParseClientHello(hello(ext))
		require.ErrorIs(t, err, ErrClientHello, why)
		require.Nil(t, stdClientHello(hello(ext)), why)
	}
}

func TestParseClientHelloRefusesEarly(t *testing.T) {
	for why, in := range map[string]string{
		"text":                    "G",
		"SSLv2":                   "\x80\x2e\x01",
		"alert":                   "\x15",
		"another major version":   "\x16\x04",
		"empty record":            "\x16\x03\x01\x00\x00",
		"record too long":         "\x16\x03\x01\x40\x01",
		"a server's message":      "\x16\x03\x01\x00\x05\x02",
		"message too long":        "\x16\x03\x01\x00\x04\x01\x01\x00\x01",
		"another record between":  "\x16\x03\x01\x00\x05\x01\x00\x00\x50\x03\x17",
		"cut random":              "\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",
		"more than 128 different": string(hello(manyExtensions(129))),
	} {
		_, err := ParseClientHello([]byte(in))
		require.ErrorIs(t, err, ErrClientHello, why)
	}
	_, err := ParseClientHello(hello(manyExtensions(128)))
	require.NoError(t, err)
}

func manyExtensions(n int) (s string) {
	for i := range n {
		s += string([]byte{0x70, byte(i), 0, 0})
	}
	return s
}

// strictOnlyInStd are the extensions that crypto/tls checks and we do not read:
// status_request, ec_point_formats, extended_master_secret and others.
var strictOnlyInStd = []uint16{5, 11, 18, 23, 41, 42, 44, 45, 50, 51, 57, 65037, 65281}

// FuzzClientHello holds the parser against crypto/tls: what both accept reads
// the same, and what only one accepts has a known reason.
func FuzzClientHello(f *testing.F) {
	f.Add(clientHello(f, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}}))
	f.Add(clientHello(f, &tls.Config{ServerName: "a.test", MaxVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519}}))
	f.Add(refragment(clientHello(f, &tls.Config{ServerName: "a.test"}), 7))
	f.Add(hello("\x00\x00\x00\x0f\x00\x0d\x01\x00\x01x\x00\x00\x06a.test"))
	f.Add(hello("\x00\x10\x00\x05\x00\x03\x02h2\x00\x2b\x00\x05\x04\x03\x04\x0a\x0a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseClientHello(b)
		want := stdClientHello(b)
		switch {
		case err == nil && want != nil:
			requireSameHello(t, want, got)
			if slices.Contains(got.Extensions, extSupportedVersions) {
				require.Equal(t, helloOf(want).JA4(), got.JA4())
			}
		case err == nil:
			checked := slices.ContainsFunc(got.Extensions, func(e uint16) bool { return slices.Contains(strictOnlyInStd, e) })
			require.True(t, checked, "crypto/tls refuses %q", b)
		case want != nil && len(want.Extensions) <= helloMaxExtensions:
			// crypto/tls skips warnings and does not look at the version of
			// records.
			require.True(t, oddRecords(b), "crypto/tls accepts %q: %v", b, err)
		}
		if err == nil {
			require.Len(t, got.JA4(), ja4Bytes)
			var r helloReader
			for cut := 0; cut < len(b); cut += 1 + len(b)/256 {
				if msg, err := r.read(b[:cut]); err == nil {
					again, err := parseHello(msg)
					require.NoError(t, err)
					require.Equal(t, got, again, "complete after %d bytes", cut)
					break
				} else {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				}
			}
		}
	})
}

func oddRecords(b []byte) bool {
	for len(b) >= recordHeaderBytes {
		if b[0] != recordHandshake || b[1] != 3 {
			return true
		}
		b = b[min(recordHeaderBytes+int(binary.BigEndian.Uint16(b[3:])), len(b)):]
	}
	return false
}

// BenchmarkClientHello holds the parser against the rival: a handshake of
// crypto/tls over the bytes at hand, stopped in GetConfigForClient.
func BenchmarkClientHello(b *testing.B) {
	in := clientHello(b, &tls.Config{ServerName: "www.example.com", NextProtos: []string{"h2", "http/1.1"}})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseClientHello(in); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("crypto_tls", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if stdClientHello(in) == nil {
				b.Fatal("refused")
			}
		}
	})
}
