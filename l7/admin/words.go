// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"strings"
	"time"
)

// rate formats a number of events per second.
func rate(v float64) string {
	switch {
	case v == 0:
		return "0/s"
	case v < 0.95:
		return fmt.Sprintf("%.2g/s", v)
	case v < 9.95:
		return fmt.Sprintf("%.1f/s", v)
	}
	return count(uint64(v+0.5)) + "/s"
}

// count formats a number in groups of three digits.
func count[T ~int | ~uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:] // a narrow no-break space
	}
	return s
}

// percent formats a share.
func percent(v float64) string {
	switch {
	case v == 0:
		return "0 %"
	case v < 0.001:
		return "< 0.1 %"
	case v < 0.0995:
		return fmt.Sprintf("%.1f %%", 100*v)
	}
	return fmt.Sprintf("%.0f %%", 100*v)
}

// seconds formats a latency.
func seconds(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v < 0.001:
		return fmt.Sprintf("%.0f µs", v*1e6)
	case v < 0.01:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case v < 1:
		return fmt.Sprintf("%.0f ms", v*1e3)
	}
	return fmt.Sprintf("%.1f s", v)
}

// span formats a duration in its two largest units.
func span(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 0:
		return "0s"
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm %ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh %dm", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%dd %dh", s/86400, s%86400/3600)
}

// size formats a number of bytes.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 || v >= 99.5 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// points formats rates as the points of a line of 60 by 16.
func points(rates []float64) string {
	most := 0.0
	for _, r := range rates {
		most = max(most, r)
	}
	if most == 0 {
		most = 1
	}
	var b strings.Builder
	for i, r := range rates {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%d,%.1f", 60-len(rates)+i, 15-14*r/most)
	}
	return b.String()
}
