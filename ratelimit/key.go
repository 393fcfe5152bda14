// SPDX-License-Identifier: Apache-2.0

package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strings"
	"unsafe"
)

// maxKeyBytes is the longest string that is kept as it is. Keys come from
// outside, and a table of bounded length is only bounded if they are.
const maxKeyBytes = 256

// shortKey returns s, or what stands for it if it is longer than maxKeyBytes:
// its beginning and a hash of all of it, the same in every process.
func shortKey(s string) string {
	if len(s) <= maxKeyBytes {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return s[:64] + "..." + hex.EncodeToString(sum[:])
}

// keys are where the strings of a key type are: its text is all that a key can
// hold on to, or be long by.
type keys[K comparable] struct {
	strings []uintptr // offsets in a K
}

func keysOf[K comparable]() keys[K] {
	return keys[K]{stringsIn(reflect.TypeFor[K](), 0, nil)}
}

// stringsIn appends the offsets of the strings in a value of type t at base.
func stringsIn(t reflect.Type, base uintptr, to []uintptr) []uintptr {
	switch t.Kind() {
	case reflect.String:
		to = append(to, base)
	case reflect.Struct:
		for i := range t.NumField() {
			to = stringsIn(t.Field(i).Type, base+t.Field(i).Offset, to)
		}
	case reflect.Array:
		for i := range t.Len() {
			to = stringsIn(t.Elem(), base+uintptr(i)*t.Elem().Size(), to)
		}
	}
	return to
}

// short returns key with its long strings made short.
func (k *keys[K]) short(key K) K {
	for _, at := range k.strings {
		if s := (*string)(unsafe.Add(unsafe.Pointer(&key), at)); len(*s) > maxKeyBytes {
			*s = shortKey(*s)
		}
	}
	return key
}

// own returns key without ties to the memory it came from: a string may be a
// piece of a whole request head.
func (k *keys[K]) own(key K) K {
	for _, at := range k.strings {
		s := (*string)(unsafe.Add(unsafe.Pointer(&key), at))
		*s = strings.Clone(*s)
	}
	return key
}
