// SPDX-License-Identifier: Apache-2.0

package h3

import (
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// Types of streams in one direction (RFC 9114, section 6.2, and RFC 9204, section 4.2).
const (
	streamControl = 0x0
	streamPush    = 0x1
	streamEncoder = 0x2
	streamDecoder = 0x3
)

// Settings (RFC 9114, section 7.2.4, RFC 9220 and RFC 9297).
const (
	settingMaxFieldSection = 0x6
	settingConnectProtocol = 0x8
	settingDatagram        = 0x33
)

const maxControlFrame = 4 << 10 // bytes of one whose payload is needed

// settings returns the beginning of our control stream. QPACK's dynamic table stays off.
func settings(maxHeader int) []byte {
	var p []byte
	if maxHeader > 0 {
		p = quicvarint.Append(quicvarint.Append(p, settingMaxFieldSection), uint64(maxHeader))
	}
	p = quicvarint.Append(quicvarint.Append(p, settingConnectProtocol), 1)
	b := quicvarint.Append(nil, streamControl)
	return append(appendFrame(b, frameSettings, uint64(len(p))), p...)
}

// acceptUni serves the client's streams in one direction.
func (c *conn) acceptUni() {
	select { // early data needs none of them
	case <-c.qc.HandshakeComplete():
		c.f.shaken(c.qc.Context(), true)
	case <-c.qc.Context().Done():
		return
	}
	for {
		str, err := c.qc.AcceptUniStream(c.qc.Context())
		if err != nil {
			return
		}
		c.streams.Go(func() {
			defer str.ReleaseStreamCredit()
			err := c.serveUni(str)
			if f, ok := errors.AsType[*fault](err); ok {
				c.fail(f)
			}
		})
	}
}

// serveUni reads such a stream to its end. A fault ends the connection.
func (c *conn) serveUni(str *quic.ReceiveStream) error {
	in := &input{from: str, buf: make([]byte, 64)}
	kind, err := quicvarint.Read(in)
	if err != nil {
		return c.glitch(glitchStream)
	}
	switch kind {
	case streamControl:
		return critical(&c.control, func() error { return c.readControl(in) })
	case streamEncoder:
		return critical(&c.encoder, func() error { return readEncoder(in) })
	case streamDecoder:
		return critical(&c.decoder, func() error { return readDecoder(in) })
	case streamPush:
		return ofConn(codeStreamCreation, "push stream of a client")
	}
	str.CancelRead(quic.StreamErrorCode(codeStreamCreation)) // RFC 9114, section 6.2
	return c.glitch(glitchStream)
}

// critical reads a stream that there is once, and that must not end.
func critical(had interface{ Swap(bool) bool }, read func() error) error {
	if had.Swap(true) {
		return ofConn(codeStreamCreation, "a critical stream twice")
	}
	err := read()
	if _, ok := errors.AsType[*fault](err); ok {
		return err
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF || remoteReset(err) {
		return ofConn(codeClosedCritical, "a critical stream has ended")
	}
	return nil // the connection has ended
}

// readControl reads the client's control stream.
func (c *conn) readControl(in *input) error {
	push := int64(-1) // the last GOAWAY's
	maxPush := int64(-1)
	for first := true; ; first = false {
		kind, n, err := in.frame()
		if err != nil {
			return err
		}
		if first != (kind == frameSettings) {
			if first {
				return ofConn(codeMissingSettings, "no SETTINGS")
			}
			return ofConn(codeFrameUnexpected, "SETTINGS twice")
		}
		switch kind {
		case frameSettings:
			err = readSettings(in, n)
		case frameGoAway:
			var id uint64
			if id, err = readID(in, n); err == nil && push >= 0 && int64(id) > push {
				err = ofConn(codeID, "GOAWAY with a larger id")
			}
			push = int64(id)
		case frameMaxPushID:
			var id uint64
			if id, err = readID(in, n); err == nil && int64(id) < maxPush {
				err = ofConn(codeID, "MAX_PUSH_ID with a smaller id")
			}
			maxPush = int64(id)
			err = errors.Join(err, c.glitch(glitchUnknown))
		case frameCancelPush:
			err = ofConn(codeID, "CANCEL_PUSH of a push that there is not")
		case framePriorityOfPush:
			err = ofConn(codeID, "PRIORITY_UPDATE of a push that there is not")
		case framePriority:
			err = errors.Join(c.glitch(glitchUnknown), readPriority(in, n))
		case frameData, frameHeaders, framePushPromise, 0x2, 0x6, 0x8, 0x9:
			err = ofConn(codeFrameUnexpected, fmt.Sprintf("frame %#x on the control stream", kind))
		default:
			err = errors.Join(c.glitch(glitchUnknown), in.discard(n))
		}
		if err != nil {
			return err
		}
	}
}

// payload reads the payload of a frame of the control stream.
func payload(in *input, n uint64) (*input, error) {
	if n > maxControlFrame {
		return nil, ofConn(codeExcessiveLoad, "frame too long")
	}
	b, err := in.block(int(n))
	if err != nil {
		return nil, err
	}
	return &input{buf: b, w: len(b), err: io.EOF}, nil
}

// readID reads a frame that consists of an id.
func readID(in *input, n uint64) (uint64, error) {
	p, err := payload(in, n)
	if err != nil {
		return 0, err
	}
	id, err := quicvarint.Read(p)
	if err != nil || !p.ended() {
		return 0, ofConn(codeFrame, "malformed frame")
	}
	return id, nil
}

// readPriority checks a PRIORITY_UPDATE. Its priority is not used.
func readPriority(in *input, n uint64) error {
	p, err := payload(in, n)
	if err != nil {
		return err
	}
	id, err := quicvarint.Read(p)
	switch {
	case err != nil:
		return ofConn(codeFrame, "malformed frame")
	case id%4 != 0:
		return ofConn(codeID, "PRIORITY_UPDATE of a stream that is no request")
	}
	return nil
}

// readSettings checks SETTINGS. We use none of them: replies are sent without a dynamic
// table, and the client's limit of their heads is for the client to keep.
func readSettings(in *input, n uint64) error {
	p, err := payload(in, n)
	if err != nil {
		return err
	}
	seen := make(map[uint64]bool)
	for !p.ended() {
		id, err := quicvarint.Read(p)
		if err != nil {
			return ofConn(codeFrame, "malformed SETTINGS")
		}
		value, err := quicvarint.Read(p)
		if err != nil {
			return ofConn(codeFrame, "malformed SETTINGS")
		}
		switch {
		case seen[id]:
			return ofConn(codeSettings, "a setting twice")
		case id >= 0x2 && id <= 0x5: // of HTTP/2
			return ofConn(codeSettings, "reserved setting")
		case (id == settingConnectProtocol || id == settingDatagram) && value > 1:
			return ofConn(codeSettings, "setting out of range")
		}
		seen[id] = true
	}
	return nil
}

// readEncoder reads the client's QPACK encoder stream: without a dynamic table it can only
// say that the table has no bytes (RFC 9204, section 4.3.1).
func readEncoder(in *input) error {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0x20 {
			return ofConn(codeQPACKEncoder, "QPACK instruction without a table")
		}
	}
}

// readDecoder reads the client's QPACK decoder stream: it can only cancel streams (RFC
// 9204, section 4.4).
func readDecoder(in *input) error {
	for {
		b, err := in.ReadByte()
		if err != nil {
			return err
		}
		if b&0xc0 != 0x40 {
			return ofConn(codeQPACKDecoder, "QPACK instruction without a table")
		}
		for i, more := 0, b&0x3f == 0x3f; more; i++ {
			if b, err = in.ReadByte(); err != nil {
				return err
			}
			if more = b&0x80 != 0; more && i >= 9 {
				return ofConn(codeQPACKDecoder, "malformed QPACK instruction")
			}
		}
	}
}
