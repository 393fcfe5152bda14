// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// A chart is groups of bars, or lines.
type chart struct {
	title  string
	y      string   // what the numbers are
	x      []string // names of the groups, or of the points of the lines
	series []series
	lines  bool
	log    bool // logarithmic scale
}

// A series is one number for each x.
type series struct {
	name   string
	values []float64
}

// Measures of the picture, in pixels.
const (
	width, height            = 840, 400
	left, right, top, bottom = 64, 20, 70, 40
)

// colors can be told apart by the colour-blind. (Okabe, Ito: Color Universal Design.)
var colors = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"}

// svg draws c.
func (c *chart) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, width/2, 22, "middle", `font-size="15"`, c.title)
	c.axes(&b)
	if c.lines {
		c.drawLines(&b)
	} else {
		c.drawBars(&b)
	}
	x := left
	for i, s := range c.series {
		fmt.Fprintf(&b, `<rect x="%d" y="38" width="12" height="12" fill="%s"/>`+"\n", x, colors[i%len(colors)])
		text(&b, float64(x+17), 48, "start", "", s.name)
		x += 40 + 6*len(s.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axes draws the frame, the marks and their names.
func (c *chart) axes(b *strings.Builder) {
	for _, m := range c.marks() {
		y := c.height(m)
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", left, width-right, y, y)
		text(b, left-6, y+4, "end", "", number(m))
	}
	fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="black"/>`+"\n", left, width-right, height-bottom, height-bottom)
	fmt.Fprintf(b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (height+top-bottom)/2, escape(c.y))
	every := 1
	if c.lines {
		every = max(1, len(c.x)/10)
	}
	for i, name := range c.x {
		if i%every == 0 {
			text(b, c.center(i), height-bottom+18, "middle", "", name)
		}
	}
}

// center returns the middle of group i.
func (c *chart) center(i int) float64 {
	return left + (float64(i)+0.5)*(width-left-right)/float64(len(c.x))
}

// drawBars draws a bar for each number, and the number above it.
func (c *chart) drawBars(b *strings.Builder) {
	group := 0.8 * (width - left - right) / float64(len(c.x))
	each := group / float64(len(c.series))
	for k, s := range c.series {
		for i, v := range s.values {
			x, y := c.center(i)-group/2+float64(k)*each, c.height(v)
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, each-2, float64(height-bottom)-y, colors[k%len(colors)])
			text(b, x+each/2-1, y-4, "middle", `font-size="10"`, number(v))
		}
	}
}

// drawLines draws a line for each series. A point without a number breaks it.
func (c *chart) drawLines(b *strings.Builder) {
	for k, s := range c.series {
		var points []string
		for i, v := range s.values {
			if v > 0 {
				points = append(points, fmt.Sprintf("%.1f,%.1f", c.center(i), c.height(v)))
			}
		}
		dash := ""
		if k%2 == 1 {
			dash = ` stroke-dasharray="6 3"`
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2"%s points="%s"/>`+"\n", colors[k%len(colors)], dash, strings.Join(points, " "))
	}
}

// span returns the least and the most that the scale shows.
func (c *chart) span() (least, most float64) {
	least, most = math.Inf(1), 0
	for _, s := range c.series {
		for _, v := range s.values {
			most = math.Max(most, v)
			if v > 0 {
				least = math.Min(least, v)
			}
		}
	}
	if most == 0 {
		return 0, 1
	}
	if !c.log {
		return 0, most * 1.15
	}
	return math.Pow(10, math.Floor(math.Log10(least)-0.01)), most * 1.4
}

// height returns where v is.
func (c *chart) height(v float64) float64 {
	least, most := c.span()
	part := 0.0
	switch {
	case c.log && v > least:
		part = math.Log(v/least) / math.Log(most/least)
	case !c.log:
		part = v / most
	}
	return height - bottom - part*(height-top-bottom)
}

// marks returns round numbers within the span.
func (c *chart) marks() (marks []float64) {
	least, most := c.span()
	if c.log {
		for p := max(least, 1e-9); p <= most; p *= 10 {
			for _, m := range []float64{1, 2, 5} {
				if m*p <= most {
					marks = append(marks, m*p)
				}
			}
		}
		return marks
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for most/step < 4 {
		step /= 2
	}
	for v := 0.0; v <= most; v += step {
		marks = append(marks, v)
	}
	return marks
}

// table returns the numbers as text.
func (c *chart) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s (%s)\n  %-16s", c.title, c.y, "")
	for _, s := range c.series {
		fmt.Fprintf(&b, " %24s", s.name)
	}
	b.WriteByte('\n')
	for i, name := range c.x {
		fmt.Fprintf(&b, "  %-16s", name)
		for _, s := range c.series {
			fmt.Fprintf(&b, " %24.2f", s.values[i])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func text(b *strings.Builder, x, y float64, anchor, attrs, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, attrs, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// number writes v with three digits, or as many as a whole number has.
func number(v float64) string {
	if v >= 100 || v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
