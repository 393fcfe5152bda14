// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRecordAsLine(t *testing.T) {
	r := &Record{
		Start:  time.Date(2026, 2, 6, 12, 12, 51, 443e6, time.UTC),
		Remote: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 33313},
		Server: "a b/\"1", Tries: 1, BytesOut: 212,
		Assigned: time.Millisecond, Connected: 3 * time.Millisecond, Total: 5 * time.Second,
		Termination: Termination{ServerTimeout, PhaseData},
	}
	require.Equal(t, `192.0.2.1:33313 [06/Feb/2026:12:12:51.443] web app/a#20b#2F#221 1/2/5000 212 sD 0/0/0/0/0 0/0`, string(r.AppendHAProxy(nil, "web", "app")))
	require.Equal(t, `unix:1 [01/Jan/0001:00:00:00.000] - -/<NOSRV> -1/-1/0 0 -- 0/0/0/0/0 0/0`, string((&Record{}).AppendHAProxy(nil, "", "")))
}
