// SPDX-License-Identifier: Apache-2.0

package h2

import (
	"encoding/binary"
	"strconv"
)

// Preface is what a client sends first (RFC 9113, section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Sizes of the protocol in bytes.
const (
	HeaderLen    = 9       // of a frame's header
	MinMaxFrame  = 1 << 14 // the least, and the default, of SETTINGS_MAX_FRAME_SIZE
	MaxMaxFrame  = 1<<24 - 1
	MaxWindow    = 1<<31 - 1
	firstWindow  = 1<<16 - 1 // of the connection and of each stream, before SETTINGS
	firstTable   = 4096      // of header compression, before SETTINGS
	maxStreamID  = 1<<31 - 1
	settingLen   = 6
	priorityLen  = 5
	pingLen      = 8
	goAwayLen    = 8
	resetLen     = 4
	incrementLen = 4
)

// A Type is the type of a frame (RFC 9113, section 6).
type Type uint8

// The types of frames. Others are ignored (section 5.5).
const (
	Data           Type = 0x0
	Headers        Type = 0x1
	Priority       Type = 0x2
	ResetStream    Type = 0x3
	SettingsFrame  Type = 0x4
	PushPromise    Type = 0x5
	Ping           Type = 0x6
	GoAway         Type = 0x7
	WindowUpdate   Type = 0x8
	Continuation   Type = 0x9
	PriorityUpdate Type = 0x10 // RFC 9218, section 7.1
)

// Flags of frames. Their meaning depends on the type.
const (
	FlagAck        = 0x1 // SETTINGS, PING
	FlagEndStream  = 0x1 // DATA, HEADERS
	FlagEndHeaders = 0x4
	FlagPadded     = 0x8
	FlagPriority   = 0x20
)

// A Code says why a stream or a connection ended (RFC 9113, section 7).
type Code uint32

// The codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

func (c Code) String() string {
	names := [...]string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
		"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
		"CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
	if int64(c) < int64(len(names)) {
		return names[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// A ConnError ends the connection: GOAWAY with its code, then the end.
type ConnError struct {
	Code   Code
	Reason string
}

func (e *ConnError) Error() string { return "h2: " + e.Code.String() + ": " + e.Reason }

func connError(c Code, reason string) error { return &ConnError{c, reason} }

// A Frame is a frame as received. Payload is a part of the input.
type Frame struct {
	Type    Type
	Flags   uint8
	Stream  uint32
	Payload []byte
}

func (f *Frame) has(flag uint8) bool { return f.Flags&flag != 0 }

// unpad returns the payload without its padding (RFC 9113, section 6.1).
func (f *Frame) unpad() ([]byte, error) {
	p := f.Payload
	if !f.has(FlagPadded) {
		return p, nil
	}
	if len(p) == 0 {
		return nil, connError(FrameSizeError, "padded frame without a padding length")
	}
	pad := int(p[0])
	if p = p[1:]; pad > len(p) {
		return nil, connError(ProtocolError, "padding longer than its frame")
	}
	return p[:len(p)-pad], nil
}

// cut returns the first frame of b, and its length n with the header. N is 0 if
// the frame is not complete. A frame larger than most bytes is an error as soon
// as its header has come.
func cut(b []byte, most uint32) (f Frame, n int, err error) {
	if len(b) < HeaderLen {
		return f, 0, nil
	}
	length := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
	if length > most {
		return f, 0, connError(FrameSizeError, "frame too large")
	}
	n = HeaderLen + int(length)
	if len(b) < n {
		return f, 0, nil
	}
	f = Frame{Type: Type(b[3]), Flags: b[4], Stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID, Payload: b[HeaderLen:n]}
	return f, n, nil
}

// appendHeader appends the header of a frame of n bytes.
func appendHeader(b []byte, n int, t Type, flags uint8, stream uint32) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), byte(t), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func appendReset(b []byte, stream uint32, c Code) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, resetLen, ResetStream, 0, stream), uint32(c))
}

func appendWindowUpdate(b []byte, stream uint32, n int64) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, incrementLen, WindowUpdate, 0, stream), uint32(n))
}

func appendGoAway(b []byte, last uint32, c Code, debug string) []byte {
	b = appendHeader(b, goAwayLen+len(debug), GoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(c))
	return append(b, debug...)
}

func appendPing(b []byte, flags uint8, data [pingLen]byte) []byte {
	return append(appendHeader(b, pingLen, Ping, flags, 0), data[:]...)
}
