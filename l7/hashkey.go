// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"encoding/binary"
	"math"
	"net/netip"
	"reflect"

	"github.com/penstock-lb/penstock/balance"
)

// hashOf hashes a key for a balance.Request. The hash is the same in every
// process. It is false for types that are not [hashable].
func hashOf[K comparable](key K) (uint64, bool) {
	if h := commonHash(key); h != 0 {
		return h, true
	}
	return anyHash(key)
}

// commonHash hashes the key types of this package without an allocation. It is
// 0 for others.
func commonHash(key any) uint64 {
	switch k := key.(type) {
	case string:
		return balance.Hash(k)
	case netip.Addr:
		return balance.HashAddr(k)
	case netip.Prefix:
		return balance.HashAddr(k.Addr())
	}
	return 0
}

func anyHash(key any) (uint64, bool) {
	v := reflect.ValueOf(key)
	if v.Kind() == reflect.String {
		return balance.Hash(v.String()), true
	}
	var room [64]byte
	b, ok := appendKey(room[:0], v)
	return balance.Hash(string(b)), ok
}

// appendKey appends an encoding of v that is unique among the values of its type.
func appendKey(b []byte, v reflect.Value) ([]byte, bool) {
	switch k := v.Kind(); {
	case v.Type() == reflect.TypeFor[netip.Addr](), v.Type() == reflect.TypeFor[netip.AddrPort](), v.Type() == reflect.TypeFor[netip.Prefix]():
		if !v.CanInterface() {
			return b, false
		}
		switch a := v.Interface().(type) {
		case netip.Addr:
			b = binary.LittleEndian.AppendUint64(b, balance.HashAddr(a))
		case netip.AddrPort:
			b = binary.LittleEndian.AppendUint64(b, balance.HashAddr(a.Addr()))
			b = binary.LittleEndian.AppendUint16(b, a.Port())
		case netip.Prefix:
			b = binary.LittleEndian.AppendUint64(b, balance.HashAddr(a.Addr()))
		}
	case k == reflect.String:
		b = binary.LittleEndian.AppendUint64(b, uint64(v.Len()))
		b = append(b, v.String()...)
	case k == reflect.Bool && v.Bool():
		b = append(b, 1)
	case k == reflect.Bool:
		b = append(b, 0)
	case v.CanInt():
		b = binary.LittleEndian.AppendUint64(b, uint64(v.Int()))
	case v.CanUint():
		b = binary.LittleEndian.AppendUint64(b, v.Uint())
	case v.CanFloat():
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Float()+0)) // 0 and -0 are one key
	case k == reflect.Array:
		for i, ok := 0, true; i < v.Len(); i++ {
			if b, ok = appendKey(b, v.Index(i)); !ok {
				return b, false
			}
		}
	case k == reflect.Struct:
		for i, ok := 0, true; i < v.NumField(); i++ {
			if b, ok = appendKey(b, v.Field(i)); !ok {
				return b, false
			}
		}
	default:
		return b, false
	}
	return b, true
}

// hashable reports whether keys of that type mean the same in every process: no
// pointers, interfaces or channels.
func hashable[K comparable]() bool {
	t := reflect.TypeFor[K]()
	if t.Kind() == reflect.Interface {
		return false
	}
	_, ok := appendKey(nil, reflect.New(t).Elem())
	return ok
}
