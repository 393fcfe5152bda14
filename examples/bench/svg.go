// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// colors are those of the peers in their order. They can be told apart by the
// colour-blind. (Okabe, Ito: Color Universal Design.)
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#e69f00", "#999999"}

func colorOf(peer string) string {
	for i, p := range peers {
		if p.Name == peer {
			return colors[i%len(colors)]
		}
	}
	return "black"
}

// plainTitle is the title of a peer without the marks of Markdown.
func plainTitle(peer string) string { return strings.Trim(title(peer), "`") }

// A Panel is a small chart of bars, one for each peer, with a scale of its own.
type Panel struct {
	Title, Unit string
	Peers       []string
	Values      []float64 // 0 means that there is none
}

// Measures of a picture of panels, in pixels.
const (
	panelWidth, panelHead, barHeight = 300, 44, 20
	nameWidth, barWidth              = 72, 150
)

// drawPanels draws panels in rows of three. Lower is better in all of them.
func drawPanels(heading string, panels []Panel) string {
	most := 0
	for _, p := range panels {
		most = max(most, len(p.Peers))
	}
	each := panelHead + barHeight*most + 16
	rows := (len(panels) + 2) / 3
	b := begin(3*panelWidth+20, 46+rows*each, heading)
	for i, p := range panels {
		p.draw(b, 20+i%3*panelWidth, 46+i/3*each)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p *Panel) draw(b *strings.Builder, x, y int) {
	label(b, x, y+16, "start", `font-weight="bold"`, p.Title)
	label(b, x, y+32, "start", `font-size="11" fill="#555"`, p.Unit)
	most := 0.0
	for _, v := range p.Values {
		most = math.Max(most, v)
	}
	for i, v := range p.Values {
		top := y + panelHead + i*barHeight
		label(b, x+nameWidth-8, top+13, "end", "", plainTitle(p.Peers[i]))
		if v <= 0 {
			label(b, x+nameWidth, top+13, "start", `fill="#777"`, "not supported")
			continue
		}
		w := math.Max(1, v/most*barWidth)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", x+nameWidth, top+1, w, barHeight-5, colorOf(p.Peers[i]))
		label(b, x+nameWidth+int(w)+5, top+13, "start", "", number3(v))
	}
}

// Lines is a chart of a value for each peer over sizes, both on logarithmic scales.
type Lines struct {
	Title, X, Y string
	Sizes       []int
	Peers       []string
	Values      [][]float64 // by peer, then by size; 0 means that there is none
}

// Measures of a picture of lines, in pixels.
const (
	lineWidth, lineHeight      = 620, 340
	left, right, above, bottom = 64, 100, 50, 50
)

func (l *Lines) draw() string {
	b := begin(lineWidth, lineHeight, l.Title)
	least, most := l.span()
	y := func(v float64) float64 {
		return lineHeight - bottom - math.Log(v/least)/math.Log(most/least)*(lineHeight-above-bottom)
	}
	for p := math.Pow(10, math.Floor(math.Log10(least))); p <= most; p *= 10 {
		for _, m := range []float64{p, 2 * p, 5 * p} {
			if m >= least && m <= most {
				fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", left, lineWidth-right, y(m), y(m))
				label(b, left-6, int(y(m))+4, "end", "", number3(m))
			}
		}
	}
	for i, s := range l.Sizes {
		label(b, int(l.x(i)), lineHeight-bottom+18, "middle", "", fmt.Sprint(s))
	}
	label(b, (left+lineWidth-right)/2, lineHeight-10, "middle", "", l.X)
	fmt.Fprintf(b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (lineHeight+above-bottom)/2, escape(l.Y))
	for k, peer := range l.Peers {
		var points []string
		end := 0.0
		for i, v := range l.Values[k] {
			if v > 0 {
				points = append(points, fmt.Sprintf("%.1f,%.1f", l.x(i), y(v)))
				end = y(v)
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", l.x(i), y(v), colorOf(peer))
			}
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", colorOf(peer), strings.Join(points, " "))
		if len(points) > 0 {
			label(b, int(l.x(len(l.Sizes)-1))+8, int(end)+4, "start", fmt.Sprintf(`fill="%s"`, colorOf(peer)), plainTitle(peer))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// x returns where size i is.
func (l *Lines) x(i int) float64 {
	first, last := math.Log(float64(l.Sizes[0])), math.Log(float64(l.Sizes[len(l.Sizes)-1]))
	if first == last {
		return left
	}
	return left + 10 + (math.Log(float64(l.Sizes[i]))-first)/(last-first)*(lineWidth-left-right-20)
}

// span returns the least and the most that the scale shows.
func (l *Lines) span() (least, most float64) {
	least, most = math.Inf(1), 0
	for _, values := range l.Values {
		for _, v := range values {
			if v > 0 {
				least, most = math.Min(least, v), math.Max(most, v)
			}
		}
	}
	if most == 0 {
		return 1, 10
	}
	return least / 1.5, most * 1.5
}

func begin(width, height int, heading string) *strings.Builder {
	b := new(strings.Builder)
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	label(b, width/2, 26, "middle", `font-size="15"`, heading)
	return b
}

func label(b *strings.Builder, x, y int, anchor, attrs, s string) {
	if attrs != "" {
		attrs = " " + attrs
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, attrs, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// number3 writes v with three digits, fewer below 1, and as many as its whole part has.
func number3(v float64) string {
	switch {
	case v <= 0:
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.095:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}
