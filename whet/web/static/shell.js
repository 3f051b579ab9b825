// What every page shares: keys, theme, live parts, messages. No page depends on it for reading.
(function () {
  "use strict";
  const $ = (selector, from) => (from || document).querySelector(selector);
  const $$ = (selector, from) => Array.from((from || document).querySelectorAll(selector));
  const csrf = () => ($('meta[name="csrf"]') || {}).content || "";

  // --- messages -----------------------------------------------------------------------------------------------
  // Errors stay until they are read and interrupt a screen reader; the rest is read when it is silent.
  // `link`: {href, label}, where to go on.
  function say(text, kind, link) {
    const toast = document.createElement("div");
    toast.className = "toast " + (kind || "");
    const words = document.createElement("span");
    words.textContent = text;
    if (link) {
      const anchor = document.createElement("a");
      anchor.href = link.href;
      anchor.textContent = link.label;
      words.append(" ", anchor);
    }
    const close = document.createElement("button");
    close.type = "button";
    close.className = "quiet small";
    close.textContent = "Close";
    close.title = "Esc";
    close.addEventListener("click", () => toast.remove());
    toast.append(words, close);
    $(kind === "bad" ? "#toasts [role=alert]" : "#toasts [role=status]").append(toast);
    if (kind !== "bad") setTimeout(() => toast.remove(), 6000);
  }

  function closeNewestMessage() {
    const shown = $$("#toasts .toast");
    if (shown.length) shown[shown.length - 1].remove();
    return shown.length > 0;
  }

  class RefusedError extends Error {
    constructor(message, status, code) { super(message); this.status = status; this.code = code; }
  }

  // --- a session that ended: log in over the page, then go on with what was asked for ---------------------------
  let loggingIn = null;
  function logIn() {
    loggingIn = loggingIn || new Promise((resolve, reject) => {
      const dialog = $("#login-again").content.firstElementChild.cloneNode(true);
      const form = $("form", dialog);
      const problem = $("[data-problem]", dialog);
      document.body.append(dialog);
      form.onsubmit = async (event) => {
        event.preventDefault();
        try {
          const response = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { accept: "application/json" }, credentials: "same-origin" });
          const body = await response.json();
          if (!response.ok) throw new Error(body.error.message);
          $('meta[name="csrf"]').content = body.csrf;
          for (const field of $$('input[name="csrf"]')) field.value = body.csrf;
          if (body.name !== dialog.dataset.user) { location.reload(); return; } // another person's page
          resolve();
          dialog.close();
        } catch (error) {
          problem.textContent = error instanceof TypeError ? "The console does not answer." : error.message;
          problem.hidden = false;
        }
      };
      dialog.onclose = () => { loggingIn = null; dialog.remove(); reject(new RefusedError("You are logged out. Nothing was sent; what you typed is still here.", 401)); };
      dialog.showModal();
      $("[name=password]", dialog).focus();
    });
    return loggingIn;
  }

  async function send(url, options) {
    const again = () => {
      const headers = Object.assign({ "x-csrf-token": csrf(), accept: "application/json" }, (options || {}).headers);
      return fetch(url, Object.assign({}, options, { headers, credentials: "same-origin" }));
    };
    let response = await again();
    if (response.status === 401 && $("#login-again")) {
      await logIn();
      response = await again();
    }
    if (!response.ok) {
      let message = "The console answered " + response.status + ".", code = "";
      try { const body = await response.clone().json(); message = [body.error.message, body.error.hint].filter(Boolean).join(" "); code = body.error.code; } catch (error) { /* not JSON */ }
      throw new RefusedError(message, response.status, code);
    }
    return response;
  }

  // The same text rendered by the server, as every page shows it.
  async function rendered(text) {
    const response = await send("/rendered", { method: "POST", body: JSON.stringify({ text }), headers: { "content-type": "application/json", accept: "text/html" } });
    const holder = document.createElement("template");
    holder.innerHTML = await response.text(); // escaped and checked there (whet.web.rendering)
    return holder.content;
  }

  window.whet = { say, send, csrf, rendered };

  document.body.addEventListener("htmx:configRequest", (event) => { event.detail.headers["x-csrf-token"] = csrf(); });
  document.body.addEventListener("htmx:responseError", (event) => {
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText || "", "text/html");
    const words = $$("p", page).map((line) => line.textContent).join(" ").trim();
    say(words || "The console answered " + event.detail.xhr.status + ".", "bad");
  });
  document.body.addEventListener("htmx:sendError", () => say("The console does not answer. What you entered is still here; try again.", "bad"));

  // --- times: absolute in the viewer's zone on hover, relative kept up to date ----------------------------------
  const steps = [[31536000, "y"], [2592000, "mo"], [86400, "d"], [3600, "h"], [60, "min"]];
  function relative(at) {
    const seconds = (Date.now() - at) / 1000;
    for (const [size, unit] of steps) {
      if (Math.abs(seconds) >= size) {
        const amount = Math.floor(Math.abs(seconds) / size) + " " + unit;
        return seconds < 0 ? "in " + amount : amount + " ago";
      }
    }
    return Math.abs(seconds) < 10 ? "just now" : seconds > 0 ? Math.floor(seconds) + " s ago" : "in " + Math.floor(-seconds) + " s";
  }
  function age(at) {
    const seconds = Math.max(0, Date.now() - at) / 1000;
    const [size, unit] = steps.find((step) => seconds >= step[0]) || [1, "s"];
    return Math.floor(seconds / size) + " " + unit;
  }
  function clock(at) { // in the viewer's zone; the day stands there when it is another one
    const moment = new Date(at);
    const today = moment.toDateString() === new Date().toDateString();
    const hours = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    return moment.toLocaleString(undefined, today ? hours : Object.assign({ day: "numeric", month: "short" }, hours));
  }
  const forms = { since: (at) => "since " + clock(at) + " (" + age(at) + ")", clock };
  function times(from) {
    for (const time of $$("time[data-at]", from)) {
      const at = Number(time.dataset.at);
      const text = (forms[time.dataset.form] || relative)(at);
      if (time.textContent !== text) time.textContent = text;
      time.title = new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
    }
    for (const title of $$("title[data-at]", from)) title.textContent = clock(Number(title.dataset.at)) + ": " + title.dataset.text; // of charts
  }
  times(document);
  setInterval(() => times(document), 10000);
  document.body.addEventListener("htmx:afterSwap", (event) => times(event.target));

  // --- live parts: <div data-live="/address" data-every="5"> is replaced by what the address answers -------------
  // A [data-headline] in it becomes the page's headline. Nothing changes while the pointer or the focus is in it, or the tab is hidden; the next turn catches up.
  function live(part) {
    const every = Number(part.dataset.every || 5) * 1000;
    let last = "";
    let failures = 0;
    const turn = async () => {
      if (!part.isConnected || part.dataset.live === "") return;
      const busy = document.hidden || part.matches(":hover") || part.contains(document.activeElement) || $("details.confirm[open]", part);
      if (!busy) {
        try {
          const response = await fetch(part.dataset.live, { headers: { "hx-request": "true" }, credentials: "same-origin" });
          if (response.status === 401) { location.reload(); return; }
          if (response.status === 503) sayDown(part, await response.clone().text());
          if (!response.ok) throw new Error(String(response.status));
          const html = await response.text();
          failures = 0;
          delete part.dataset.downSince;
          part.classList.remove("stale");
          const old = $(".stale-note", part);
          if (html !== last || old) {
            last = html;
            part.innerHTML = html;
            times(part);
            const headline = $("[data-headline]", part);
            if (headline && $("#headline").textContent !== headline.textContent) $("#headline").replaceChildren(...headline.cloneNode(true).childNodes);
            if (window.htmx) window.htmx.process(part);
            part.dispatchEvent(new CustomEvent("whet:live", { bubbles: true }));
          }
          if (response.headers.get("x-live") === "done") return; // nothing will change any more
        } catch (error) {
          failures += 1;
          if (failures === 2) {
            if (!part.dataset.downSince) sayDown(part, "<p>The console does not answer</p>");
            part.classList.add("stale");
            const note = document.createElement("p");
            note.className = "stale-note";
            note.textContent = "The console has not answered since " + new Date().toLocaleTimeString() + "; what you see is from before.";
            part.prepend(note);
          }
        }
      }
      setTimeout(turn, every * Math.min(1 + failures, 6));
    };
    setTimeout(turn, every);
  }
  // A page whose headline is live says at once what the console cannot reach, and since when it saw that.
  function sayDown(part, html) {
    const words = $("p", new DOMParser().parseFromString(html, "text/html"));
    if (part.dataset.headlineLive === undefined || !words) return;
    part.dataset.downSince = part.dataset.downSince || String(Date.now());
    const time = document.createElement("time");
    time.dataset.at = part.dataset.downSince;
    time.dataset.form = "since";
    $("#headline").replaceChildren(words.textContent.replace(/[.]$/, "") + " ", time);
    times($("#headline"));
  }
  $$("[data-live]").forEach(live);

  // --- small deeds ----------------------------------------------------------------------------------------------
  const side = $(".side");
  if (side) side.dataset.js = "";
  document.addEventListener("click", async (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    const button = target.closest("button, [data-copy]");
    if (button && button.matches("[data-menu]")) {
      const open = side.classList.toggle("open");
      button.setAttribute("aria-expanded", String(open));
    } else if (button && button.matches("[data-theme-toggle]")) {
      toggleTheme();
    } else if (button && button.matches("[data-letters]")) {
      toggleLetters();
    } else if (button && button.matches("[data-help]")) {
      $("#help").showModal();
    } else if (button && button.matches("[data-back]")) {
      history.back();
    } else if (button && button.matches("[data-close]")) {
      const open = button.closest("details, dialog");
      if (open instanceof HTMLDialogElement) open.close(); else if (open) { open.open = false; $("summary", open).focus(); }
    } else if (button && button.dataset.copy !== undefined) {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        const before = button.textContent;
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = before; }, 1500);
      } catch (error) { say("The browser does not allow copying here. Select the text and copy it yourself.", "bad"); }
    }
    for (const open of $$("details.confirm[open]")) if (!open.contains(target)) open.open = false;
    const row = target.closest("[data-row]");
    if (row && !target.closest("a, button, input, select, label, summary, details") && !String(getSelection())) {
      const link = $("a[href]", row);
      if (link) { if (event.metaKey || event.ctrlKey) window.open(link.href); else link.click(); }
    }
  });

  function toggleTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("whet.theme", next); } catch (error) { /* storage is off: it holds for this page */ }
    document.dispatchEvent(new CustomEvent("whet:theme", { detail: next }));
  }

  // Rendered texts, or their letters: one choice for all pages.
  function toggleLetters() {
    const raw = document.documentElement.classList.toggle("raw-text");
    $$("[data-letters]").forEach((button) => button.setAttribute("aria-pressed", String(raw)));
    try { localStorage.setItem("whet.raw-text", raw ? "1" : ""); } catch (error) { /* storage is off: it holds for this page */ }
  }

  // Select and checkbox filters apply at once; a form with data-auto needs no button.
  document.addEventListener("change", (event) => {
    const form = event.target instanceof Element && event.target.closest("form[data-auto]");
    if (form && event.target.matches("select, input[type=checkbox], input[type=date], [data-auto-change]")) form.requestSubmit();
  });

  // --- keys -----------------------------------------------------------------------------------------------------
  let pending = 0; // when `g` was pressed
  const typing = (element) => element instanceof Element && (element.matches("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]") );
  function step(by) {
    const rows = $$("[data-row]").filter((row) => row.offsetParent !== null);
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("at"));
    const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
    rows.forEach((row) => row.classList.toggle("at", row === next));
    const link = $("a[href]", next) || next;
    link.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      const confirms = $$("details.confirm[open]");
      for (const open of confirms) { open.open = false; $("summary", open).focus(); }
      if (!confirms.length && !typing(document.activeElement) && !$("dialog[open]")) closeNewestMessage();
      if (typing(document.activeElement) && !$("dialog[open]")) { // a search field would empty itself
        event.preventDefault();
        document.activeElement.blur();
      }
      return;
    }
    if (typing(event.target) || $("dialog[open]")) return;
    if (pending && Date.now() - pending < 1200) {
      pending = 0;
      const link = $$("nav a[data-key]").find((item) => item.dataset.key === event.key);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "x" && $(".md")) { event.preventDefault(); toggleLetters(); return; }
    if (event.key === "g") { pending = Date.now(); event.preventDefault(); return; }
    if (event.key === "?") { event.preventDefault(); $("#help").showModal(); return; }
    if (event.key === "/") {
      const search = $("[data-search], input[type=search]");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
      return;
    }
    if (document.body.dataset.keys === "own") return;
    if (event.key === "j" || event.key === "k") { event.preventDefault(); step(event.key === "j" ? 1 : -1); return; }
    const deed = $$("[data-key]").find((item) => item.dataset.key === event.key && !item.closest("nav"));
    if (deed && deed.offsetParent !== null) {
      event.preventDefault();
      if (deed.matches("details")) { deed.open = true; const first = $("button", deed); if (first) first.focus(); } else deed.click();
    }
  });
})();
