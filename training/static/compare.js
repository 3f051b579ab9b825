// One row at a time, by keyboard. The next one is fetched while this one is read; a vote shows it at once and is sent behind it.
// Votes go one after the other, in the order of the keys. Texts are only ever set as text, by the server's template.
(function () {
  "use strict";
  const stage = document.querySelector("#stage");
  if (!stage || !stage.querySelector(".compare-row")) return;
  document.documentElement.dataset.js = "";
  document.body.dataset.keys = "own"; // j, k and n mean something else here than on a list

  const address = stage.dataset.address;
  const rows = JSON.parse(stage.dataset.rows);
  const voted = new Set(JSON.parse(stage.dataset.voted));
  const undoable = Array.from(voted); // newest last
  const parts = new Map(); // row → promise of its node
  const undoButton = document.querySelector("[data-undo]");
  let at = stage.querySelector(".compare-row").dataset.shown; // null while the next one is on its way
  let turn = 0; // counts the rows that were asked for
  let sending = Promise.resolve();
  let waiting = 0; // requests that change something and have not been answered

  function fetched(row) {
    if (!parts.has(row)) {
      parts.set(row, window.whet.send(address + "/part?row=" + encodeURIComponent(row), { headers: { "hx-request": "true", accept: "text/html" } })
        .then((response) => response.text())
        .then((html) => {
          const holder = document.createElement("template");
          holder.innerHTML = html; // our own server's page part, escaped there; the policy forbids scripts in any case
          return holder.content.querySelector(".compare-row");
        })
        .catch((error) => { parts.delete(row); throw error; }));
    }
    return parts.get(row);
  }

  const turned = (row) => rows.slice(rows.indexOf(row) + 1).concat(rows.slice(0, rows.indexOf(row)));
  const nextOpen = (row) => turned(row).find((one) => !voted.has(one));

  // Keys that are pressed before the next row stands there are meant for that one: until then there is none to vote on.
  function leave() {
    at = null;
    stage.setAttribute("aria-busy", "true");
    return (turn += 1);
  }

  async function show(row) {
    const mine = leave();
    try {
      const node = await fetched(row);
      if (mine !== turn) return; // another row was asked for meanwhile
      stage.replaceChildren(node.cloneNode(true));
      at = row;
      window.scrollTo({ top: 0 });
      const next = nextOpen(row);
      if (next) fetched(next).catch(() => { /* asked again, and told, when it is needed */ });
    } catch (error) {
      if (mine === turn) at = stage.querySelector(".compare-row").dataset.shown;
      window.whet.say(error.message, "bad");
    } finally {
      if (mine === turn) stage.removeAttribute("aria-busy");
    }
  }

  function count() {
    document.querySelector("[data-progress]").textContent = voted.size;
    undoButton.disabled = !undoable.length;
  }

  const post = (path, fields) => {
    waiting += 1;
    const sent = sending.then(() => window.whet.send(path, { method: "POST", body: new URLSearchParams(fields) }));
    sending = sent.catch(() => { /* told by whoever waits for it */ }).finally(() => { waiting -= 1; });
    return sent;
  };

  function vote(choice) {
    if (at === null || !stage.querySelector('[name="choice"][value="' + choice + '"]')) return;
    const row = at;
    const before = voted.has(row);
    voted.add(row);
    if (undoable.includes(row)) undoable.splice(undoable.indexOf(row), 1);
    undoable.push(row);
    parts.delete(row); // shown again, it shows the vote
    count();
    const sent = post(address, { row, choice });
    sent.catch((error) => {
      if (!before) voted.delete(row);
      if (undoable.includes(row)) undoable.splice(undoable.indexOf(row), 1);
      count();
      window.whet.say(error.message, "bad");
      show(row);
    });
    const next = nextOpen(row);
    if (next) show(next);
    else { at = null; sent.then(() => { location.assign(address); }, () => { /* told above */ }); }
  }

  function undo() {
    const row = undoable.pop();
    if (!row) { window.whet.say("There is nothing to undo."); return; }
    voted.delete(row);
    parts.delete(row);
    count();
    const mine = leave();
    post(address + "/undo", { row }).then(() => { parts.delete(row); show(row); }, (error) => {
      if (mine === turn) { at = stage.querySelector(".compare-row").dataset.shown; stage.removeAttribute("aria-busy"); }
      voted.add(row);
      undoable.push(row);
      count();
      window.whet.say(error.message, "bad");
    });
  }

  function move(by) {
    if (at === null) return;
    const row = rows[rows.indexOf(at) + by];
    if (row === undefined) { window.whet.say(by > 0 ? "This is the last row that differs." : "This is the first row that differs."); return; }
    if (waiting && voted.has(row)) { leave(); sending.then(() => show(row)); } // so that it shows the vote
    else show(row);
  }

  document.addEventListener("submit", (event) => {
    if (event.target.matches("[data-vote-form]")) {
      event.preventDefault();
      if (event.submitter && event.submitter.name === "choice") vote(event.submitter.value);
    } else if (event.target.matches("[data-undo-form]")) {
      event.preventDefault();
      undo();
    }
  });
  stage.addEventListener("click", (event) => {
    const link = event.target.closest("a[rel]");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    move(link.rel === "next" ? 1 : -1);
  });

  let goKey = false; // `g` and a letter goes to another page; that letter is not a vote
  document.addEventListener("keydown", (event) => {
    const going = goKey;
    goKey = event.key === "g";
    if (goKey) { setTimeout(() => { goKey = false; }, 1200); return; }
    if (going || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input, textarea, select") || document.querySelector("dialog[open]")) return;
    const deeds = { 1: () => vote("1"), 2: () => vote("2"), 3: () => vote("3"), 0: () => vote("tie"), t: () => vote("tie"), n: () => vote("none"), u: undo, j: () => move(1), k: () => move(-1) };
    if (Object.hasOwn(deeds, event.key)) { event.preventDefault(); deeds[event.key](); }
  });

  window.addEventListener("beforeunload", (event) => { if (waiting) event.preventDefault(); });

  const next = nextOpen(at);
  if (next) fetched(next).catch(() => { /* asked again, and told, when it is needed */ });
})();
