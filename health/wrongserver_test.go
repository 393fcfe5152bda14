// SPDX-License-Identifier: Apache-2.0

package health_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/penstock-lb/penstock/health"
)

// A probe that meets another protocol quotes what the server said, whatever its own
// protocol makes of the first bytes: a length, a kind, a closed connection.
func TestProbesQuoteAnotherProtocol(t *testing.T) {
	says := map[string]string{
		"ssh":        "SSH-2.0-OpenSSH_9.2p1\r\n",
		"http":       "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
		"smtp":       "220 mail.example.com ESMTP\r\n",
		"redis":      "-ERR unknown command\r\n",
		"mysql":      "J\x00\x00\x00\n8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff",
		"tls":        "\x15\x03\x01\x00\x02\x02\x46",
		"ldap":       "0\x0c\x02\x01\x01a\x07\x0a\x01\x02\x04\x00\x04\x00",
		"postgresql": "R\x00\x00\x00\x08\x00\x00\x00\x03",
		"words":      "no\n",
	}
	for name, p := range map[string]health.Probe{
		"redis": health.Redis{}, "postgresql": health.PostgreSQL{}, "mysql": health.MySQL{}, "smtp": health.SMTP{}, "ldap": health.LDAP{},
		"http": health.HTTP{}, "grpc": health.GRPC{}, "agent": health.Agent{},
		"postgresql tls": health.PostgreSQL{Connect: health.Connect{TLS: &tls.Config{InsecureSkipVerify: true}}},
		"mysql tls":      health.MySQL{Connect: health.Connect{TLS: &tls.Config{InsecureSkipVerify: true}}},
		"tls":            health.TCP{Connect: health.Connect{TLS: &tls.Config{InsecureSkipVerify: true}}},
	} {
		for server, line := range says {
			got := verdict(probe(t, p, speakingOn(t, line)))
			switch own, _, _ := strings.Cut(name, " "); {
			case own == server: // what it makes of its own protocol is tested elsewhere
			case server == "words" && own != "http", server == "tls" && (own == "redis" || own == "smtp"), server == "postgresql" && own != "http":
				// too short for a head or without a line end: it waits for more
				require.NotContains(t, got, "longer than", "%s asks %s", name, server)
			case name == "tls" || own == "agent" || server == "http" && own == "http":
				require.Regexp(t, "not TLS|TLS failed|unexpected word|bad status", got, "%s asks %s", name, server)
			default:
				require.Regexp(t, "unexpected answer|malformed HTTP|bad status", got, "%s asks %s", name, server)
			}
		}
	}
}

// speakingOn is speaking by a server that stays until the client leaves.
func speakingOn(t testing.TB, line string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, line)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}()
	return ln.Addr().String()
}
