// One conversation at a time, by keyboard. The next one is fetched while this one is read; a decision swaps it in at
// once and is sent behind it. What fails comes back with everything that was typed. Texts are only ever set as text.
(function () {
  "use strict";
  const stage = document.querySelector("#stage");
  if (!stage) return;
  document.documentElement.dataset.js = "";
  document.body.dataset.keys = "own"; // j, k and the letters below mean something else here than on a list

  const find = (selector, from) => (from || current()).querySelector(selector);
  const current = () => stage.querySelector(".review-item");
  const decidable = (node) => node && node.querySelector("[data-review-form]");
  const query = stage.dataset.query;
  const behind = []; // conversations left undecided with j
  const ahead = []; // fetched, or left with k; the first is next
  const inFlight = new Set(); // decisions on their way to the server
  const undoable = []; // promises of review ids, in the order of the keys pressed, newest last; null where the decision failed
  let shownAt = Date.now();
  let fetching = null;
  let decisions = 0, overlapped = false; // whether answers to decisions may have come in another order than the decisions were made

  const progress = document.querySelector("#progress");
  if (progress && progress.dataset.last) undoable.push(Promise.resolve(progress.dataset.last));
  const undoButton = document.querySelector("[data-undo]");

  // --- fetching ahead ---------------------------------------------------------------------------------------------
  const known = () => [current(), ...behind, ...ahead].filter(Boolean).map((node) => node.dataset.item).concat(Array.from(inFlight));

  function toNode(html) {
    const holder = document.createElement("template");
    holder.innerHTML = html; // our own server's page part, escaped there; the policy forbids scripts in any case
    return holder.content.querySelector(".review-item");
  }

  async function part(path) {
    const response = await whet.send(path, { headers: { "hx-request": "true", accept: "text/html" } });
    return response.status === 204 ? null : toNode(await response.text());
  }

  function prefetch() {
    if (fetching || ahead.length) return fetching;
    const parameters = new URLSearchParams(query);
    parameters.set("exclude", known().join(","));
    fetching = part("/review/part?" + parameters)
      .then((node) => { if (node && !known().includes(node.dataset.item)) ahead.push(node); })
      .catch(() => { /* the next decision asks again, and then says what is wrong */ })
      .finally(() => { fetching = null; });
    return fetching;
  }

  // --- showing ----------------------------------------------------------------------------------------------------
  function show(node) {
    const words = document.activeElement;
    if (words && stage.contains(words)) words.blur();
    if (node) stage.replaceChildren(node);
    else stage.replaceChildren(document.querySelector("#all-done").content.cloneNode(true));
    shownAt = Date.now();
    if (node) {
      if (window.htmx) window.htmx.process(node);
      difference();
      if (decidable(node)) showPicks();
      window.scrollTo({ top: 0 });
      prefetch();
    }
  }

  async function next() {
    if (!ahead.length) {
      stage.setAttribute("aria-busy", "true");
      await prefetch();
      stage.removeAttribute("aria-busy");
    }
    show(ahead.shift() || null);
  }

  function counts(stats) {
    if (!stats || !progress) return;
    const set = (name, value) => { const place = progress.querySelector("[data-progress-" + name + "]"); if (place) place.textContent = value; };
    set("today", stats.decided_today_by_me);
    set("all", stats.decided_today);
    if (stats.median_seconds) set("pace", Math.round(stats.median_seconds * 10) / 10 + " s");
    const headline = document.querySelector("h1");
    headline.textContent = stats.waiting === 0 ? "Nothing waits for review." : stats.waiting + (stats.waiting === 1 ? " conversation waits for you." : " conversations wait for you.");
    if (undoButton) undoButton.disabled = undoable.length === 0;
  }

  // Each answer carries the counts of its own moment; the last one to arrive need not be the last one that was made.
  function recount() {
    const made = decisions;
    overlapped = false;
    whet.send("/api/review/stats").then((response) => response.json()).then((stats) => { if (made === decisions) counts(stats); }, () => { /* the next decision brings them */ });
  }

  // --- deciding ---------------------------------------------------------------------------------------------------
  const original = () => find("[data-original]").textContent;
  const editor = () => find("[data-editor]");

  const calls = () => find("[data-calls]");
  const callsChanged = () => calls() && calls().value.trim() !== calls().dataset.originalCalls.trim();

  // The calls in the text field as a list; null where it is no JSON. An empty field holds none.
  function calledNow() {
    if (!calls() || !calls().value.trim()) return [];
    try {
      const value = JSON.parse(calls().value);
      return Array.isArray(value) ? value : [value];
    } catch {
      return null;
    }
  }

  function restore() {
    editor().value = original();
    if (calls()) calls().value = calls().dataset.originalCalls;
    difference();
  }

  function said(decision) {
    const form = new FormData(find("[data-review-form]"));
    const plain = (text) => String(text || "").replace(/\r\n/g, "\n");
    const body = {
      decision,
      labels: form.getAll("label"),
      note: plain(form.get("note")),
      seconds: Math.round((Date.now() - shownAt) / 100) / 10,
      passage_verdict: form.get("passage_verdict") || "",
      passage_ids: form.get("passage_verdict") ? form.getAll("passage") : [],
      checks: plain(form.get("checks")).split("\n").map((line) => line.trim()).filter(Boolean),
    };
    if (decision === "edit") {
      body.answer = plain(form.get("answer"));
      if (calls()) body.tool_calls = calledNow();
    }
    return body;
  }

  // An answer that ended at its token limit is approved by a second press on another control, so that
  // two quick presses of `a`, meant for two conversations, never approve one unread.
  function askAboutCut() {
    find("[data-cut-question]").hidden = false;
    find("[data-accept-cut]").focus();
  }

  async function decide(decision, acceptCut = false) {
    const node = current();
    if (!decidable(node)) return;
    if (decision === "approve" && (editor().value !== original() || callsChanged())) {
      whet.say("You changed the answer. Ctrl+Enter saves your text; o puts the original back.", "bad");
      editor().focus();
      return;
    }
    if (decision === "edit" && calledNow() === null) {
      whet.say("The calls of tools are not valid JSON. Nothing was sent.", "bad");
      calls().focus();
      return;
    }
    if (decision === "edit" && !editor().value.trim() && !calledNow().length) {
      whet.say("An edit needs the right answer; the text is empty.", "bad");
      return;
    }
    const unchanged = decision === "approve" || (decision === "edit" && editor().value === original() && !callsChanged());
    if (unchanged && "cut" in node.dataset && !acceptCut) {
      askAboutCut();
      return;
    }
    const body = said(decision);
    if (acceptCut) body.accept_cut = true;
    const item = node.dataset.item;
    inFlight.add(item);
    decisions += 1;
    overlapped = overlapped || inFlight.size > 1;
    node.remove();
    const shown = next();
    const sent = whet.send("/api/review/" + encodeURIComponent(item), { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }).then((response) => response.json());
    const review = sent.then((answer) => answer.review_id, () => null);
    undoable.push(review); // at once: an undo pressed while this is on its way means this decision, and waits for it
    try {
      counts((await sent).stats);
    } catch (error) {
      if (undoable.includes(review)) undoable.splice(undoable.indexOf(review), 1);
      await shown;
      whet.say(error.message, "bad");
      if (current()) ahead.unshift(current());
      show(node); // with everything that was typed in it
    } finally {
      inFlight.delete(item);
      if (overlapped && !inFlight.size) recount();
    }
  }

  let undoing = Promise.resolve(); // one after the other, so that two quick presses bring back the newest last
  const undo = () => { undoing = undoing.then(undoNewest); };

  async function undoNewest() {
    const newest = undoable.pop();
    if (!newest) { whet.say("There is nothing to undo."); return; }
    const review = await newest;
    if (!review) return; // the decision itself failed: it was said, and the conversation is back already
    try {
      const response = await whet.send("/api/review/" + encodeURIComponent(review) + "/undo", { method: "POST" });
      const answer = await response.json();
      const node = await part("/review/part/" + encodeURIComponent(answer.item_id));
      if (current()) ahead.unshift(current());
      show(node);
      counts(answer.stats);
      whet.say(answer.message, "good");
    } catch (error) {
      undoable.push(newest);
      whet.say(error.message, "bad");
    }
  }

  async function move(by) {
    if (by < 0 && !behind.length) { whet.say("This is the first one you opened."); return; }
    const node = current();
    if (by > 0) {
      if (!ahead.length) await prefetch();
      if (!ahead.length) { whet.say("This is the last one that waits."); return; }
      if (node) behind.push(node);
      show(ahead.shift());
    } else {
      if (node) ahead.unshift(node);
      show(behind.pop());
    }
  }

  // --- the difference, by words ------------------------------------------------------------------------------------
  function pieces(before, after) {
    const a = before.match(/\s+|\S+/g) || [];
    const b = after.match(/\s+|\S+/g) || [];
    if (a.length * b.length > 1e6) return [["del", before], ["ins", after]]; // longer than anybody compares by words
    const rows = [new Uint32Array(b.length + 1)];
    for (let i = 1; i <= a.length; i++) {
      const row = new Uint32Array(b.length + 1);
      for (let j = 1; j <= b.length; j++) row[j] = a[i - 1] === b[j - 1] ? rows[i - 1][j - 1] + 1 : Math.max(rows[i - 1][j], row[j - 1]);
      rows.push(row);
    }
    const found = [];
    let i = a.length;
    let j = b.length;
    while (i || j) {
      if (i && j && a[i - 1] === b[j - 1]) { found.push(["same", a[i - 1]]); i--; j--; }
      else if (j && (!i || rows[i][j - 1] >= rows[i - 1][j])) { found.push(["ins", b[j - 1]]); j--; }
      else { found.push(["del", a[i - 1]]); i--; }
    }
    return found.reverse();
  }

  function difference() {
    const node = current();
    if (!decidable(node)) return;
    const place = find("[data-diff]");
    const changed = editor().value !== original();
    place.hidden = !changed;
    if (!changed) return;
    place.replaceChildren(...pieces(original(), editor().value).map(([kind, text]) => {
      if (kind === "same") return document.createTextNode(text);
      const piece = document.createElement(kind);
      piece.textContent = text;
      return piece;
    }));
  }

  // --- passages ----------------------------------------------------------------------------------------------------
  const picks = () => Array.from(current().querySelectorAll("[data-pick]"));

  function showPicks() {
    const chosen = find("[data-verdict]:checked");
    const about = chosen && ["wrong", "ignored"].includes(chosen.dataset.verdict);
    for (const pick of picks()) {
      pick.closest(".review-pick").hidden = !about;
      if (!about) pick.checked = false;
      pick.closest("[data-passage]").classList.toggle("picked", pick.checked);
    }
  }

  // Pressed once, the verdict is about the first passage; again, about the next; after the last, nothing is said.
  function verdict(name) {
    const choice = find('[data-verdict="' + name + '"]');
    if (!choice) return;
    const at = choice.checked ? picks().findIndex((pick) => pick.checked) : -1;
    const last = name === "missing" ? choice.checked : choice.checked && at === picks().length - 1;
    picks().forEach((pick, index) => { pick.checked = name !== "missing" && !last && index === at + 1; });
    if (last) find('[data-verdict=""]').checked = true; else choice.checked = true;
    showPicks();
    const picked = picks().find((pick) => pick.checked);
    if (picked) { const fold = picked.closest("[data-passage]").querySelector("details"); fold.open = true; fold.scrollIntoView({ block: "nearest" }); }
  }

  function use(text) {
    editor().value = text;
    difference();
    editor().focus();
  }

  // --- listening ----------------------------------------------------------------------------------------------------
  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-review-form]")) {
      event.preventDefault();
      const button = event.submitter;
      if (button && "acceptCut" in button.dataset) decide("approve", true);
      else decide(button && button.dataset.decision ? button.dataset.decision : "edit");
    } else if (event.target.matches("[data-undo-form]")) {
      event.preventDefault();
      undo();
    }
  });
  stage.addEventListener("change", (event) => {
    if (event.target.matches("[data-verdict]") && ["wrong", "ignored"].includes(event.target.dataset.verdict) && !picks().some((pick) => pick.checked)) picks()[0].checked = true;
    if (event.target.matches("[data-verdict], [data-pick]")) showPicks();
  });
  stage.addEventListener("input", (event) => { if (event.target.matches("[data-editor]")) difference(); });
  stage.addEventListener("click", (event) => {
    if (event.target.closest("[data-use]")) use(find("[data-correction]").textContent);
  });

  const typing = (element) => element.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
  document.addEventListener("keydown", (event) => {
    const node = current();
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && decidable(node) && node.contains(document.activeElement)) {
      event.preventDefault();
      decide("edit");
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target) || document.querySelector("dialog[open]")) return;
    const label = decidable(node) && /^[1-9]$/.test(event.key) ? node.querySelectorAll("input[name=label]")[Number(event.key) - 1] : null;
    const deeds = {
      a: () => decide("approve"),
      r: () => decide("reject"),
      s: () => decide("skip"),
      u: undo,
      j: () => move(1),
      k: () => move(-1),
      e: () => { if (decidable(node)) { editor().focus(); editor().setSelectionRange(editor().value.length, editor().value.length); } },
      c: () => { const text = decidable(node) && find("[data-correction]"); if (text) use(text.textContent); },
      o: () => { if (decidable(node)) restore(); },
      m: () => { if (decidable(node)) verdict("missing"); },
      w: () => { if (decidable(node)) verdict("wrong"); },
      i: () => { if (decidable(node)) verdict("ignored"); },
      n: () => { if (decidable(node)) { find("[data-note]").closest("details").open = true; find("[data-note]").focus(); } },
    };
    if (label) { event.preventDefault(); label.checked = !label.checked; return; }
    if (Object.hasOwn(deeds, event.key) && !goKey) { event.preventDefault(); deeds[event.key](); }
  });

  // `g` and a letter goes to another page; that letter is not a decision.
  let goKey = false;
  document.addEventListener("keydown", (event) => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    goKey = event.key === "g";
    if (goKey) setTimeout(() => { goKey = false; }, 1200);
  });

  // Somebody who reads for long keeps the conversation; one whose claim is lost is told before they type on.
  setInterval(async () => {
    const node = current();
    if (!decidable(node) || document.hidden) return;
    try {
      const response = await whet.send("/api/review/" + encodeURIComponent(node.dataset.item) + "/claim", { method: "POST" });
      if (!(await response.json()).held && current() === node) whet.say("Somebody else has taken this conversation. Copy your text if you need it, and go on with j.", "bad");
    } catch (error) { /* the next decision says what is wrong */ }
  }, Math.max(10, Number(stage.dataset.claimS) / 3) * 1000);

  window.addEventListener("beforeunload", (event) => {
    const typed = decidable(current()) && (editor().value !== original() || callsChanged());
    if (inFlight.size || typed) event.preventDefault();
  });

  if (current()) { difference(); if (decidable(current())) showPicks(); prefetch(); }
})();
