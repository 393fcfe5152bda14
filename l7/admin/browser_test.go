// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/websocket"

	"github.com/penstock-lb/penstock/balance"
	"github.com/penstock-lb/penstock/l7/admin"
)

// A browser is a tab of Chromium.
type browser struct {
	*testing.T
	ws *websocket.Conn
	id int
}

// openBrowser starts Chromium, or skips the test where there is none.
func openBrowser(t *testing.T) *browser {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" || testing.Short() {
		t.Skip("no Chromium")
	}
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
		"--remote-debugging-port=0", "--remote-allow-origins=*", "--user-data-dir="+t.TempDir(), "about:blank")
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	drained := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		select { // its children write into the folder that is removed next, until they close the pipe
		case <-drained:
		case <-time.After(10 * time.Second):
		}
		_ = cmd.Wait()
	})
	var endpoint string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, at, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
			endpoint = at
			break
		}
	}
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, out)
	}()
	require.NotEmpty(t, endpoint, "Chromium did not start")
	b := &browser{T: t}
	b.connect(endpoint)
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	host := strings.SplitN(strings.TrimPrefix(endpoint, "ws://"), "/", 2)[0]
	b.connect("ws://" + host + "/devtools/page/" + target.TargetID)
	b.call("Page.enable", nil, nil)
	b.call("Runtime.enable", nil, nil)
	return b
}

func (b *browser) connect(url string) {
	ws, err := websocket.Dial(url, "", "http://127.0.0.1/")
	require.NoError(b, err)
	ws.MaxPayloadBytes = 64 << 20
	b.Cleanup(func() { ws.Close() })
	b.ws = ws
}

// call is one command of the DevTools protocol.
func (b *browser) call(method string, params, result any) {
	b.Helper()
	require.Empty(b, b.ask(method, params, result), method)
}

// ask is call that returns what Chromium finds wrong.
func (b *browser) ask(method string, params, result any) string {
	b.Helper()
	b.id++
	require.NoError(b, websocket.JSON.Send(b.ws, map[string]any{"id": b.id, "method": method, "params": params}))
	require.NoError(b, b.ws.SetReadDeadline(time.Now().Add(time.Minute)))
	for {
		var m struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		require.NoError(b, websocket.JSON.Receive(b.ws, &m))
		if m.ID != b.id {
			continue
		}
		if m.Error != nil {
			return m.Error.Message
		}
		if result != nil {
			require.NoError(b, json.Unmarshal(m.Result, result))
		}
		return ""
	}
}

// An evaluation is what came of some JavaScript.
type evaluation struct {
	Result           struct{ Value any }
	ExceptionDetails any
}

func evaluate(js string) map[string]any {
	return map[string]any{"expression": js, "awaitPromise": true, "returnByValue": true}
}

// eval runs JavaScript and returns what it is.
func (b *browser) eval(js string) any {
	b.Helper()
	var e evaluation
	b.call("Runtime.evaluate", evaluate(js), &e)
	require.Nil(b, e.ExceptionDetails, js)
	return e.Result.Value
}

// until waits until JavaScript is true. A page that is just being left gives no answer.
func (b *browser) until(js string) {
	b.Helper()
	require.Eventually(b, func() bool {
		var e evaluation
		wrong := b.ask("Runtime.evaluate", evaluate("document.readyState === 'complete' && !!("+js+")"), &e)
		return wrong == "" && e.Result.Value == true
	}, time.Minute, 50*time.Millisecond, js)
}

func (b *browser) visit(url string) {
	b.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	b.until("document.querySelector('main')")
}

// size sets the window, and dark or light.
func (b *browser) size(width, height int, scheme string, js bool) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": !js}, nil)
}

// shoot keeps a picture in the folder that PENSTOCK_ADMIN_SHOTS names, if it does.
func (b *browser) shoot(name string) {
	dir := os.Getenv("PENSTOCK_ADMIN_SHOTS")
	if dir == "" {
		return
	}
	var r struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &r)
	img, err := base64.StdEncoding.DecodeString(r.Data)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(filepath.Join(dir, name+".png"), img, 0o644))
}

func (w *world) serve(t *testing.T) string {
	srv := httptest.NewServer(w.h)
	t.Cleanup(func() {
		w.h.Close() // or the server would wait for the streams
		srv.Close()
	})
	return srv.URL
}

func TestBrowserSeesTroubleLive(t *testing.T) {
	b := openBrowser(t)
	w := newWorld(t, 5)
	w.h.Interval = 100 * time.Millisecond
	w.work(20)
	w.trouble()
	url := w.serve(t)
	b.size(1280, 900, "light", true)
	b.visit(url + "/ops/")
	b.until(`document.querySelector("#live-state").textContent.startsWith("live")`)
	b.shoot("light")
	for range 3 { // more than it may
		w.limit.Take(netip.MustParseAddr("192.0.2.1"), 1)
	}
	b.until(`document.querySelector(".problems").textContent.includes("refuses")`)
	for _, what := range []string{"down", "ejected", "draining", "queue", "at its limit", "refuses"} {
		require.Equal(t, true, b.eval(fmt.Sprintf(`[...document.querySelectorAll(".problems b")].some(e => e.textContent === %q)`, what)), what)
	}
	// Focus stays where it is while the page changes around it.
	b.eval(`document.querySelector("tbody a[href*='name=one']").focus()`)
	w.web.Server("one").Report(balance.Check, balance.Up, "")
	b.until(`document.getElementById("s-web/one").className === "good"`)
	require.Equal(t, true, b.eval(`document.activeElement.textContent === "one"`), "focus is kept")
	b.size(1280, 900, "dark", true)
	b.shoot("dark")
	b.size(390, 844, "light", true)
	require.Equal(t, true, b.eval(`document.documentElement.scrollWidth <= innerWidth`), "nothing to scroll sideways on a phone")
	b.shoot("phone")
	b.eval(`document.getElementById("pause").click()`)
	w.web.Server("one").Report(balance.Check, balance.Down, "again")
	time.Sleep(400 * time.Millisecond)
	require.Equal(t, "good", b.eval(`document.getElementById("s-web/one").className`), "paused")
}

func TestBrowserActs(t *testing.T) {
	b := openBrowser(t)
	w := newWorld(t, 3)
	w.h.Allow = admin.Local
	url := w.serve(t)
	for _, js := range []bool{true, false} {
		b.size(1280, 900, "light", true)
		b.visit(url + "/")
		if !js {
			b.size(1280, 900, "light", false)
			b.visit(url + "/")
		}
		b.eval(`document.querySelector("tbody a[href*='name=two']").click()`)
		b.until(`location.pathname === "/server"`)
		b.eval(`document.querySelector("[name=reason]").value = "from the browser"`)
		b.eval(`document.querySelector("[value=maint]").click()`)
		require.Eventually(t, func() bool { return w.web.Server("two").State() == balance.StateMaint }, time.Minute, 10*time.Millisecond)
		b.until(`document.querySelector("h2").textContent.includes("maintenance")`)
		b.shoot("server")
		w.web.Server("two").SetAdmin(balance.Ready, "")
	}
	b.size(1280, 900, "light", true)
	b.drainByKeyboard(w, url)
}

// press presses a key as a keyboard does.
func (b *browser) press(key string, code int, text string) {
	b.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		p := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
		if kind == "keyDown" && text != "" {
			p["text"] = text
		}
		b.call("Input.dispatchKeyEvent", p, nil)
	}
}

// drainByKeyboard drains a server without a mouse.
func (b *browser) drainByKeyboard(w *world, url string) {
	t := b.T
	b.call("Page.bringToFront", nil, nil)
	// to presses Tab until what has focus is so.
	to := func(js string) {
		t.Helper()
		for range 60 {
			b.press("Tab", 9, "")
			if b.eval("!!document.activeElement && "+js) == true {
				return
			}
		}
		t.Fatal("no Tab leads to ", js)
	}
	b.visit(url + "/")
	b.press("Tab", 9, "")
	require.Equal(t, "Skip to the figures", b.eval(`document.activeElement.textContent`))
	require.Equal(t, true, b.eval(`document.activeElement.getBoundingClientRect().left >= 0`), "it can be seen")
	b.press("Enter", 13, "\r")
	b.until(`location.hash === "#live"`)
	to(`document.activeElement.textContent === "two"`)
	b.press("Enter", 13, "\r")
	b.until(`location.pathname === "/server"`)
	to(`document.activeElement.name === "reason"`)
	b.call("Input.insertText", map[string]any{"text": "by keyboard"}, nil)
	w.web.Server("two").SetAdmin(balance.Maint, "disk")
	b.press("Enter", 13, "\r") // which of the buttons would that be?
	to(`document.activeElement.value === "drain"`)
	require.Equal(t, balance.StateMaint, w.web.Server("two").State(), "Enter in a field acts on nothing")
	b.press(" ", 32, " ")
	require.Eventually(t, func() bool { return w.web.Server("two").State() == balance.StateDrain }, time.Minute, 10*time.Millisecond)
	b.until(`document.querySelector("h2").textContent.includes("drained")`)
}

// TestBrowserShoots takes the picture of README.md: of the page that PENSTOCK_ADMIN_SHOOT
// names, when it has been looked at for a minute.
func TestBrowserShoots(t *testing.T) {
	url := os.Getenv("PENSTOCK_ADMIN_SHOOT")
	if url == "" {
		t.Skip("for people")
	}
	b := openBrowser(t)
	b.size(1100, 940, "light", true)
	b.visit(url)
	time.Sleep(65 * time.Second)
	b.shoot("page")
}

func TestBrowserFindsOneOf3000(t *testing.T) {
	b := openBrowser(t)
	w := newWorld(t, 3000)
	w.work(1)
	w.trouble()
	url := w.serve(t)
	b.size(1280, 900, "light", true)
	b.visit(url + "/")
	b.shoot("many")
	require.EqualValues(t, 100, b.eval(`document.querySelectorAll("#servers tbody tr").length`))
	b.eval(`(() => { const q = document.querySelector("[name=q]"); q.focus(); q.value = "app-2999"; q.dispatchEvent(new Event("input", {bubbles: true})); })()`)
	b.until(`document.querySelectorAll("#servers tbody tr").length === 1`)
	require.Equal(t, "q ?q=app-2999 true", b.eval(`document.activeElement.name + " " + location.search + " " + document.hasFocus()`))
	b.visit(url + "/?sort=-name&page=31")
	require.Equal(t, "app-0001", b.eval(`[...document.querySelectorAll("#servers tbody th a")].pop().textContent`))
	require.Equal(t, "descending", b.eval(`document.querySelector("#servers th").getAttribute("aria-sort")`))
	// Each thing that can be used has a name that a screen reader can say.
	require.Equal(t, float64(0), b.eval(`[...document.querySelectorAll("a, button, input, select")].filter(e => e.type !== "hidden" && !(e.textContent.trim() || e.labels?.length)).length`))
}
