// SPDX-License-Identifier: Apache-2.0

package h2

import "encoding/binary"

// The numbers of settings (RFC 9113, section 6.5.2; RFC 8441; RFC 9218).
const (
	setTableSize  = 0x1
	setPush       = 0x2
	setMaxStreams = 0x3
	setWindow     = 0x4
	setMaxFrame   = 0x5
	setMaxHeaders = 0x6
	setConnect    = 0x8
	setNoPriority = 0x9
)

// Settings are the settings that one side has sent.
type Settings struct {
	TableSize  uint32 // of the compression table for what the other side sends
	Push       bool   // the other side may push
	MaxStreams uint32 // that the other side may have open
	Window     uint32 // of a new stream, for what the other side sends
	MaxFrame   uint32 // that the other side may send
	MaxHeaders uint32 // bytes of a list of fields, 32 more for each; advice only
	Connect    bool   // extended CONNECT is supported (RFC 8441)
}

// firstSettings are those in force before the first SETTINGS.
func firstSettings() Settings {
	return Settings{
		TableSize: firstTable, Push: true, MaxStreams: 1<<32 - 1,
		Window: firstWindow, MaxFrame: MinMaxFrame, MaxHeaders: 1<<32 - 1,
	}
}

// append appends a SETTINGS frame with the values of s that differ from those
// in force before.
func (s *Settings) append(b []byte, client bool) []byte {
	start := len(b)
	b = appendHeader(b, 0, SettingsFrame, 0, 0)
	first := firstSettings()
	put := func(id uint16, v, was uint32) {
		if v != was {
			b = binary.BigEndian.AppendUint16(b, id)
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	put(setTableSize, s.TableSize, first.TableSize)
	if client {
		put(setPush, number(s.Push), number(first.Push))
	} else {
		put(setMaxStreams, s.MaxStreams, first.MaxStreams)
		put(setConnect, number(s.Connect), 0)
		put(setNoPriority, 1, 0) // the tree of RFC 7540 is ignored
	}
	put(setWindow, s.Window, first.Window)
	put(setMaxFrame, s.MaxFrame, first.MaxFrame)
	put(setMaxHeaders, s.MaxHeaders, first.MaxHeaders)
	n := len(b) - start - HeaderLen
	b[start], b[start+1], b[start+2] = byte(n>>16), byte(n>>8), byte(n)
	return b
}

func number(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// apply changes s by the payload of a SETTINGS frame, in order: of a repeated
// setting the last one wins. Server says that the peer is a server.
func (s *Settings) apply(p []byte, server bool) error {
	for ; len(p) >= settingLen; p = p[settingLen:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case setTableSize:
			s.TableSize = v
		case setPush:
			if v > 1 || v == 1 && server {
				return connError(ProtocolError, "SETTINGS_ENABLE_PUSH that this side may not send")
			}
			s.Push = v == 1
		case setMaxStreams:
			s.MaxStreams = v
		case setWindow:
			if v > MaxWindow {
				return connError(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1")
			}
			s.Window = v
		case setMaxFrame:
			if v < MinMaxFrame || v > MaxMaxFrame {
				return connError(ProtocolError, "SETTINGS_MAX_FRAME_SIZE out of range")
			}
			s.MaxFrame = v
		case setMaxHeaders:
			s.MaxHeaders = v
		case setConnect:
			if v > 1 || v == 0 && s.Connect {
				return connError(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL is not 1, or was withdrawn")
			}
			s.Connect = v == 1
		case setNoPriority:
			if v > 1 {
				return connError(ProtocolError, "SETTINGS_NO_RFC7540_PRIORITIES above 1")
			}
		}
	}
	return nil
}
