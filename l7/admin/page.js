// SPDX-License-Identifier: Apache-2.0
"use strict";
(() => {
  const live = document.getElementById("live"), state = document.getElementById("live-state");
  const pause = document.getElementById("pause"), filter = document.getElementById("filter");
  let source = null, paused = false, retry = 0;

  // morph makes a like b. Elements stay where they can, and with them focus, selection and
  // what a screen reader is at.
  function morph(a, b) {
    if (a.nodeType !== 1) {
      if (a.data !== b.data) a.data = b.data;
      return;
    }
    if (a.isEqualNode(b)) return;
    for (const { name } of [...a.attributes]) if (!b.hasAttribute(name) && name !== "open") a.removeAttribute(name);
    for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
    if (a.matches("details, input, select, textarea")) return; // what somebody is writing
    const known = new Map();
    for (const c of a.children) if (c.id) known.set(c.id, c);
    let at = a.firstChild;
    for (const want of [...b.childNodes]) {
      let have = want.id && known.get(want.id);
      if (have) {
        while (at && at !== have && !at.id) { // rather than to move what has a name, and may have focus
          const next = at.nextSibling;
          at.remove();
          at = next;
        }
        if (have !== at) a.insertBefore(have, at);
        else at = at.nextSibling;
      } else if (at && at.nodeName === want.nodeName && !at.id && !want.id) {
        have = at;
        at = at.nextSibling;
      } else {
        a.insertBefore(want, at);
        continue;
      }
      morph(have, want);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function say(text, off) {
    state.textContent = text;
    state.className = off ? "off" : "";
  }

  function show(html) {
    const want = document.createElement("main");
    const doc = new DOMParser().parseFromString("<main>" + html + "</main>", "text/html");
    want.append(...doc.querySelector("main").childNodes);
    want.id = "live";
    const focus = document.activeElement;
    morph(live, document.adoptNode(want));
    if (focus !== document.activeElement && focus.isConnected) focus.focus({ preventScroll: true }); // it was moved
    say("live, " + new Date().toLocaleTimeString("en-GB"));
  }

  function open() {
    if (source) source.close();
    source = null;
    clearTimeout(retry);
    if (paused || document.hidden) return;
    source = new EventSource(document.body.dataset.live);
    source.onmessage = (e) => { if (!paused) show(JSON.parse(e.data)); };
    source.onerror = () => {
      say("not live since " + new Date().toLocaleTimeString("en-GB"), true);
      if (source && source.readyState === EventSource.CLOSED) retry = setTimeout(open, 5000 + Math.random() * 5000);
    };
  }

  pause.hidden = false;
  pause.onclick = () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", paused);
    if (paused) say("paused", true);
    open();
  };
  document.addEventListener("visibilitychange", open);

  if (filter) {
    let timer = 0;
    filter.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const q = new URLSearchParams(new FormData(filter));
        for (const [name, value] of [...q]) if (!value) q.delete(name);
        history.replaceState(null, "", q.size ? "?" + q : "./");
        document.body.dataset.live = "events" + (q.size ? "?" + q : "");
        open();
      }, 250);
    });
  }
  open();
})();
