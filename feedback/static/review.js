// One conversation at a time, by keyboard. The next one is fetched while this one is read; a decision swaps it in at
// once and is sent behind it. What fails comes back with everything that was typed. Texts are only ever set as text.
(function () {
  "use strict";
  const stage = document.querySelector("#stage");
  if (!stage) return;
  document.body.dataset.keys = "own"; // j, k and the letters below mean something else here than on a list

  const find = (selector, from) => (from || current()).querySelector(selector);
  const current = () => stage.querySelector(".review-item");
  const decidable = (node) => node && node.querySelector("[data-review-form]");
  const query = stage.dataset.query;
  const behind = []; // conversations left undecided with j
  const ahead = []; // fetched, or left with k; the first is next
  const inFlight = new Set(); // decisions on their way to the server
  const undoable = []; // promises of review ids, in the order of the keys pressed, newest last; null where the decision failed
  const DID = { approve: "Approved.", edit: "Edit saved.", reject: "Rejected.", skip: "Skipped." };
  let shownAt = Date.now();
  let paceKept = false;
  let fetching = null, failed = null; // the error of the newest fetch
  let decisions = 0, overlapped = false; // whether answers to decisions may have come in another order than the decisions were made

  const progress = document.querySelector("#progress");
  if (progress && progress.dataset.last) undoable.push(Promise.resolve(progress.dataset.last));
  const undoButton = document.querySelector("[data-undo]");
  const drafts = window.whetDrafts(stage.dataset.user);
  const keyMap = window.whetKeyMap(stage.dataset.user, ["a", "r", "s", "u", "j", "k", "e", "c", "o", "m", "w", "i", "h", "l", "n"]);

  // --- fetching ahead ---------------------------------------------------------------------------------------------
  const known = () => [current(), ...behind, ...ahead].filter(Boolean).map((node) => node.dataset.item).concat(Array.from(inFlight));

  function toNode(html) {
    const holder = document.createElement("template");
    holder.innerHTML = html; // our own server's page part, escaped there; the policy forbids scripts in any case
    return holder.content.querySelector(".review-item");
  }

  // Release what this page holds when it closes, so that nobody waits for a claim to run out. A conversation with
  // unsent text stays held until its claim ends.
  function releaseAll() {
    const body = new URLSearchParams({ csrf: whet.csrf() });
    for (const node of [current(), ...behind, ...ahead]) {
      if (node && "held" in node.dataset && !drafts.has(node.dataset.item)) body.append("item", node.dataset.item + ":" + node.dataset.held);
    }
    if (body.has("item")) navigator.sendBeacon("/review/release", body);
  }
  window.addEventListener("pagehide", releaseAll);
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

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
      .then(() => { failed = null; }, (error) => { failed = error; })
      .finally(() => { fetching = null; });
    return fetching;
  }

  // --- showing ----------------------------------------------------------------------------------------------------
  // `before`: what was just done, said to a screen reader together with what is shown now.
  function show(node, before = "") {
    const words = document.activeElement;
    if (words && stage.contains(words)) words.blur();
    if (node) stage.replaceChildren(node);
    else stage.replaceChildren(document.querySelector(failed ? "#not-fetched" : "#all-done").content.cloneNode(true));
    shownAt = Date.now();
    if (node) {
      if (window.htmx) window.htmx.process(node);
      prepare(node);
      prefetch();
    }
    announce([before, node ? "Next: " + (node.dataset.question || "a conversation without a question") : failed ? "" : "Nothing else waits."].filter(Boolean).join(" "));
  }

  // A version of the guideline that this browser has not shown yet is open; after that the key h opens it.
  function openNewGuideline(node) {
    const fold = find("[data-guideline]", node);
    if (!fold) return;
    const key = "whet.guideline." + stage.dataset.user + "." + fold.dataset.guideline;
    try {
      fold.open = !localStorage.getItem(key);
      localStorage.setItem(key, "seen");
    } catch (error) { /* storage is off: it stays folded */ }
  }

  function prepare(node) {
    restoreDraft(node);
    keyMap.label(node);
    openNewGuideline(node);
    if (decidable(node)) { difference(); showPicks(); grow(); }
    window.scrollTo({ top: 0 });
    const judged = find("[data-judged]", node);
    const top = judged.getBoundingClientRect().top;
    if (top > window.innerHeight * 0.6) judged.scrollIntoView(); // a long conversation opens at its answer
    node.focus({ preventScroll: true });
  }

  function announce(text) {
    const place = document.querySelector("#announce");
    if (place) place.textContent = text;
  }

  // The editor is as high as its text, up to the style sheet's limit.
  function grow() {
    for (const field of current().querySelectorAll("[data-editor], [data-calls]")) {
      field.style.height = "auto";
      field.style.height = field.scrollHeight + 2 + "px";
    }
  }

  async function next(before) {
    if (!ahead.length) {
      stage.setAttribute("aria-busy", "true");
      await prefetch();
      stage.removeAttribute("aria-busy");
    }
    if (!ahead.length && failed) whet.say("The next conversation could not be fetched: " + failed.message, "bad", onward());
    show(ahead.shift() || null, before);
  }

  // --- drafts: what was typed outlives a reload, the end of a session and a crash -----------------------------------
  function typedNow(node) {
    const form = find("[data-review-form]", node);
    const data = new FormData(form);
    const unchanged = editor().value === editor().defaultValue && (!calls() || calls().value === calls().defaultValue);
    const draft = { answer: editor().value, calls: calls() ? calls().value : "", note: data.get("note"), checks: data.get("checks"), labels: data.getAll("label") };
    return unchanged && !draft.note && !draft.checks && !draft.labels.length ? null : draft;
  }

  function keepDraft() {
    const node = current();
    if (decidable(node)) drafts.keep(node.dataset.item, typedNow(node));
  }

  function restoreDraft(node) {
    const draft = drafts.read(node.dataset.item);
    const line = node.querySelector("[data-draft-line]");
    if (!draft || !line || "restored" in node.dataset) return;
    node.dataset.restored = "";
    line.hidden = false;
    const age = " you wrote " + new Date(draft.at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    if (!decidable(node)) {
      find("[data-draft-text]", node).textContent = "Not sent: the text" + age + ".";
      find("[data-draft-letters]", node).textContent = draft.answer;
      return;
    }
    find("[data-draft-text]", node).textContent = "Restored: the text" + age + ". It was not sent.";
    editor().value = draft.answer;
    if (calls()) calls().value = draft.calls;
    find("[data-note]", node).value = draft.note || "";
    node.querySelector("[name=checks]").value = draft.checks || "";
    if (draft.note || draft.checks) find("[data-note]", node).closest("details").open = true;
    for (const box of node.querySelectorAll("input[name=label]")) box.checked = draft.labels.includes(box.value);
  }

  // Unsent texts of conversations that are not on the screen, one link each.
  function listDrafts() {
    const place = document.querySelector("#drafts");
    const other = drafts.items().filter((item) => !known().includes(item));
    if (!place || !other.length) return;
    place.hidden = false;
    place.append(other.length === 1 ? "You have unsent text for another conversation: " : "You have unsent text for " + other.length + " other conversations: ");
    other.slice(0, 5).forEach((item, index) => {
      const link = document.createElement("a");
      link.href = "/review/item/" + encodeURIComponent(item);
      link.textContent = "open " + (index + 1);
      place.append(link, " ");
    });
  }

  // A conversation that was opened by its address is held from the first letter on.
  async function hold(node) {
    if ("held" in node.dataset) return;
    node.dataset.held = "0"; // asked once
    try {
      if (!(await claim(node))) whet.say("Somebody else holds this conversation. Your text is kept here.", "bad", onward());
    } catch (error) { /* the decision says what is wrong */ }
  }

  async function claim(node) {
    const response = await whet.send("/api/review/" + encodeURIComponent(node.dataset.item) + "/claim", { method: "POST" });
    const found = await response.json();
    if (found.held) node.dataset.held = String(found.until);
    return found.held;
  }

  const onward = () => ({ href: "/review" + (query ? "?" + query : ""), label: "Next conversation" });

  function counts(stats) {
    if (!stats || !progress) return;
    const set = (name, value) => { const place = progress.querySelector("[data-progress-" + name + "]"); if (place) place.textContent = value; };
    set("today", stats.decided_today_by_me);
    set("all", stats.decided_today);
    if (stats.median_seconds) set("pace", Math.round(stats.median_seconds * 10) / 10 + " s");
    const headline = document.querySelector("h1");
    headline.textContent = stats.waiting === 0 ? "Nothing waits for review." : stats.waiting_for_me === 0 ? "Nothing waits for you." : stats.waiting_for_me + (stats.waiting_for_me === 1 ? " conversation waits for you." : " conversations wait for you.");
    const others = Object.entries(stats.held).filter(([name]) => name !== stage.dataset.user).map(([name, count]) => name + " " + count);
    set("held", others.length ? " · with " + others.join(", ") : "");
    const pace = document.querySelector("#pace");
    pace.hidden = paceKept || stats.hasty_in_a_row < Number(pace.dataset.limit);
    if (stats.hasty_in_a_row === 0) paceKept = false; // asked again about the next run of quick decisions
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
    const line = find("[data-draft-line]");
    if (line) line.hidden = true;
    typed();
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

  // What should not be approved unread is approved by a second press on another control, so that two quick presses
  // of `a`, meant for two conversations, never do.
  function ask(what) {
    find('[data-ask="' + what + '"]').hidden = false;
    find('[data-accept="' + what + '"]').focus();
  }

  // `accepted`: the questions that were answered, such as "cut".
  function question(node, decision, accepted) {
    const unchanged = decision === "approve" || (decision === "edit" && editor().value === original() && !callsChanged());
    if (!unchanged) return "";
    if ("cut" in node.dataset && !accepted.includes("cut")) return "cut";
    return node.querySelector("input[name=label]:checked") && !accepted.includes("labels") ? "labels" : "";
  }

  const accepted = new WeakMap(); // node → the questions answered so far

  async function decide(decision, accept = "") {
    const node = current();
    if (!decidable(node)) return;
    if (decision === "approve" && (editor().value !== original() || callsChanged())) {
      whet.say("You changed the answer. Save edit (Ctrl+Enter) keeps your text, Put the original back (o) drops it.", "bad");
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
    if (accept) accepted.set(node, [...(accepted.get(node) || []), accept]);
    const answered = accepted.get(node) || [];
    const asks = question(node, decision, answered);
    if (asks) { ask(asks); return; }
    const body = said(decision);
    for (const what of answered) body["accept_" + what] = true;
    const item = node.dataset.item;
    keepDraft();
    inFlight.add(item);
    decisions += 1;
    overlapped = overlapped || inFlight.size > 1;
    node.remove();
    const shown = next(DID[decision]);
    const sent = whet.send("/api/review/" + encodeURIComponent(item), { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }).then((response) => response.json());
    const review = sent.then((answer) => answer.review_id, () => null);
    undoable.push(review); // at once: an undo pressed while this is on its way means this decision, and waits for it
    try {
      const answer = await sent;
      drafts.drop(item);
      counts(answer.stats);
    } catch (error) {
      if (undoable.includes(review)) undoable.splice(undoable.indexOf(review), 1);
      await shown;
      if (error.status === 409) conflict(item, error, body.answer !== undefined);
      else {
        whet.say(error.message, "bad");
        if (current()) ahead.unshift(current());
        show(node); // with everything that was typed in it
      }
    } finally {
      inFlight.delete(item);
      if (overlapped && !inFlight.size) recount();
    }
  }

  // Somebody else was first: the next conversation stays, and a link leads back to what was typed.
  function conflict(item, error, hasText) {
    whet.say(error.message.replace("; your text has not been stored.", "."), "bad", { href: "/review/item/" + encodeURIComponent(item), label: hasText ? "Your text is kept there" : "See it" });
    if (!hasText) drafts.drop(item);
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
      show(node, "Undone.");
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
      if (node && decidable(node)) behind.push(node);
      show(ahead.shift());
    } else {
      if (node) ahead.unshift(node);
      show(behind.pop());
    }
  }

  // --- the difference, by words: computed beside the page, a moment after the last letter ---------------------------
  let worker = null, pending = 0, latest = 0;
  function difference() {
    clearTimeout(pending);
    const node = current();
    if (!decidable(node)) return;
    const changed = editor().value !== original();
    find("[data-diff]").hidden = !changed;
    latest += 1; // an older result is no longer of this text
    if (!changed) return;
    pending = setTimeout(() => {
      if (!decidable(current())) return; // decided meanwhile
      if (!worker) { worker = new Worker(stage.dataset.diffWorker); worker.addEventListener("message", (event) => showDifference(event.data)); }
      worker.postMessage({ id: latest, before: original(), after: editor().value });
    }, 120);
  }

  function showDifference({ id, pieces }) {
    if (id !== latest || !decidable(current())) return;
    find("[data-diff]").replaceChildren(...pieces.map(([kind, text]) => {
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
    typed();
    editor().focus();
  }

  function typed() {
    hold(current());
    grow();
    difference();
    keepDraft();
  }

  // --- listening ----------------------------------------------------------------------------------------------------
  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-review-form]")) {
      event.preventDefault();
      const button = event.submitter;
      if (button && button.dataset.accept) decide("approve", button.dataset.accept);
      else decide(button && button.dataset.decision ? button.dataset.decision : "edit");
    } else if (event.target.matches("[data-undo-form]")) {
      event.preventDefault();
      undo();
    }
  });
  stage.addEventListener("change", (event) => {
    if (event.target.matches("[data-verdict]") && ["wrong", "ignored"].includes(event.target.dataset.verdict) && !picks().some((pick) => pick.checked)) picks()[0].checked = true;
    if (event.target.matches("[data-verdict], [data-pick]")) showPicks();
    if (event.target.matches("[name=label]")) { hold(current()); keepDraft(); }
  });
  stage.addEventListener("input", (event) => { if (event.target.matches("textarea, [data-note]")) typed(); });
  stage.addEventListener("click", (event) => {
    const taken = event.target.closest("[data-take-answer]");
    if (taken && decidable(current())) use(taken.closest("li").querySelector("[data-similar-answer]").textContent);
    else if (event.target.closest("[data-use]")) use(find("[data-correction]").textContent);
    else if (event.target.closest("[data-draft-drop]")) {
      if (decidable(current())) restore();
      drafts.drop(current().dataset.item);
      find("[data-draft-line]").hidden = true;
    } else if (event.target.closest("[data-next]") && ahead.length) { event.preventDefault(); move(1); }
  });
  // What else was asked like it is fetched when somebody wants to see it: `toggle` does not bubble.
  stage.addEventListener("toggle", async (event) => {
    const fold = event.target;
    if (!fold.matches("[data-similar]") || !fold.open || "fetched" in fold.dataset) return;
    fold.dataset.fetched = "";
    const place = fold.querySelector("[data-similar-place]");
    try {
      const response = await whet.send(fold.dataset.similar, { headers: { "hx-request": "true", accept: "text/html" } });
      const holder = document.createElement("template");
      holder.innerHTML = await response.text(); // our own server's page part, escaped there
      place.replaceChildren(holder.content);
    } catch (error) { delete fold.dataset.fetched; place.textContent = error.message; }
  }, true);
  document.querySelector("#pace").addEventListener("click", (event) => {
    if (event.target.closest("[data-pace-kept]")) { paceKept = true; event.currentTarget.hidden = true; current()?.focus(); }
  });

  const typing = (element) => element.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
  document.addEventListener("keydown", (event) => {
    const node = current();
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && decidable(node) && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      decide("edit");
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || typing(event.target) || document.querySelector("dialog[open]")) return;
    const label = decidable(node) && /^[1-9]$/.test(event.key) ? node.querySelectorAll("input[name=label]")[Number(event.key) - 1] : null;
    const actions = {
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
      h: () => { const fold = node && node.querySelector("[data-guideline]"); if (fold) { fold.open = !fold.open; fold.scrollIntoView({ block: "nearest" }); } },
      l: () => { const fold = node && node.querySelector("[data-similar]"); if (fold) { fold.open = !fold.open; fold.scrollIntoView({ block: "nearest" }); } },
      n: () => { if (decidable(node)) { find("[data-note]").closest("details").open = true; find("[data-note]").focus(); } },
    };
    if (label) { event.preventDefault(); label.click(); return; }
    const action = keyMap.actionOf(event.key);
    if (action && !goKey) { event.preventDefault(); actions[action](); }
  });

  // --- changing keys, in the window of keys --------------------------------------------------------------------------
  const keyForm = document.querySelector("[data-key-form]");
  function showKeys(sentence) {
    for (const place of [document.querySelector("#help"), document.querySelector(".head"), stage]) if (place) keyMap.label(place);
    if (sentence !== undefined) document.querySelector("[data-key-said]").textContent = sentence;
  }
  if (keyForm) {
    keyForm.addEventListener("submit", (event) => {
      event.preventDefault();
      const { action, letter } = Object.fromEntries(new FormData(keyForm));
      const refused = keyMap.choose(action, letter.toLowerCase());
      showKeys(refused || "The key is " + letter.toLowerCase() + " now, in this browser.");
    });
    keyForm.querySelector("[data-key-reset]").addEventListener("click", () => { keyMap.reset(); showKeys("Every key is as it was."); });
    showKeys();
  }

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
    if (!decidable(node) || document.hidden || !("held" in node.dataset)) return;
    try {
      if (!(await claim(node)) && current() === node) whet.say("Somebody else has taken this conversation. What you typed is kept on this page.", "bad", onward());
    } catch (error) { /* the next decision says what is wrong */ }
  }, Math.max(10, Number(stage.dataset.claimS) / 3) * 1000);

  // What is typed is a draft already; only a decision on its way can be lost.
  window.addEventListener("beforeunload", (event) => { if (inFlight.size) event.preventDefault(); });

  if (current()) { prepare(current()); if (location.pathname === "/review") prefetch(); } // a link to one conversation holds no other
  listDrafts();
})();
