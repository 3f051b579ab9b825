// Asks up to three models at once and shows each answer as it comes.
(function () {
  "use strict";
  const form = document.getElementById("play");
  const columns = Array.from(form.querySelectorAll("[data-column]"));
  const askButton = form.querySelector("[data-ask]");
  const stopButton = form.querySelector("[data-stop]");
  const WITHOUT = "-"; // the choice of no retrieval
  let running = [];

  function values() {
    const data = new FormData(form);
    const question = {
      prompt: data.get("prompt"), system: data.get("system") || "",
      max_tokens: Number(data.get("max_tokens")) || 256, temperature: Number(data.get("temperature")) || 0, top_p: Number(data.get("top_p")) || 1,
    };
    if (data.get("seed")) question.seed = Number(data.get("seed"));
    const retrieval = data.get("retrieval") || "";
    if (retrieval === WITHOUT) question.retrieve = false;
    else if (retrieval) question.collection = retrieval;
    return question;
  }

  function keepAddress(question) {
    const query = new URLSearchParams();
    columns.forEach((column, index) => query.set("abc"[index], column.querySelector("[data-model]").value));
    if (question.prompt.length < 1500) query.set("prompt", question.prompt);
    if (question.system && question.system.length < 500) query.set("system", question.system);
    const retrieval = form.elements.retrieval;
    if (retrieval && retrieval.value) query.set("rag", retrieval.value);
    history.replaceState(null, "", "/playground?" + query);
  }

  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
        if (data && data !== "[DONE]") yield JSON.parse(data);
      }
    }
  }

  // --- passages: shown as soon as they are known, marked as cited once the answer is there ------------------------
  function words(name, text) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    return part;
  }

  function showPassages(place, told) {
    const open = new Set(Array.from(place.querySelectorAll("details[open]"), (one) => one.dataset.number));
    place.replaceChildren();
    if (!told) return;
    const retrieval = told.retrieval || {};
    const found = told.citations || [];
    const head = document.createElement("p");
    head.className = "muted small-text";
    head.textContent = found.length ? found.length + (found.length === 1 ? " passage" : " passages") + " from " + retrieval.collection
      : "No passages from " + retrieval.collection + ": " + (retrieval.message || retrieval.outcome);
    place.append(head);
    for (const one of found) {
      const fold = document.createElement("details");
      fold.className = "fold passage";
      fold.dataset.number = String(one.number);
      fold.open = open.has(fold.dataset.number);
      const summary = document.createElement("summary");
      const section = one.section || "";
      const title = one.title || one.address;
      const source = section && (section + " > ").startsWith(title + " > ") ? section : [title, section].filter(Boolean).join(" > ");
      summary.append("[" + one.number + "] " + source + " ", words("muted", "score " + Number(one.score).toFixed(2)));
      if (one.used) summary.append(" ", words("badge good", "cited"));
      const text = document.createElement("div");
      text.className = "text";
      text.textContent = one.text;
      fold.append(summary, text);
      place.append(fold);
    }
  }

  // Each [1] that names a passage becomes a button that opens it, except in code.
  function linkMarks(place, passages) {
    const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walker.nextNode()) if (!walker.currentNode.parentElement.closest("code, button")) texts.push(walker.currentNode);
    for (const text of texts) {
      const pieces = text.textContent.split(/(\[\d{1,3}\])/);
      if (pieces.length > 1) text.replaceWith(...pieces.map((piece) => markButton(piece, passages)));
    }
  }

  function markButton(piece, passages) {
    const fold = /^\[\d{1,3}\]$/.test(piece) && passages.querySelector('details[data-number="' + Number(piece.slice(1, -1)) + '"]');
    if (!fold) return document.createTextNode(piece);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "cite";
    button.textContent = piece;
    button.addEventListener("click", () => { fold.open = true; fold.scrollIntoView({ block: "nearest" }); });
    return button;
  }

  // Letters while they come; the finished answer as every other page shows it, with its letters at the key x.
  async function showRendered(answer, text) {
    const html = await window.whet.rendered(text.textContent);
    if (!html.childElementCount || text.parentElement !== answer) return;
    const place = document.createElement("div");
    place.className = "md";
    place.dir = "auto";
    place.append(html);
    text.classList.add("letters");
    text.before(place);
  }

  async function ask(column, question) {
    const model = column.querySelector("[data-model]").value;
    const answer = column.querySelector("[data-answer]");
    const facts = column.querySelector("[data-facts]");
    const after = column.querySelector("[data-after]");
    const passages = column.querySelector("[data-passages]");
    const abort = new AbortController();
    after.hidden = true;
    facts.textContent = "";
    answer.replaceChildren();
    passages.replaceChildren();
    answer.classList.remove("failed");
    answer.classList.add("waiting");
    const text = document.createElement("div");
    text.className = "turn-text";
    answer.append(text);
    const began = performance.now();
    let first = 0;
    let usage = null;
    let stopped = false;
    running.push({ abort: () => { stopped = true; abort.abort(); } });
    try {
      const response = await window.whet.send("/playground/ask", {
        method: "POST", body: JSON.stringify(Object.assign({ model }, question, column.querySelector("[data-rag]").checked ? {} : { retrieve: false })), headers: { "content-type": "application/json" }, signal: abort.signal,
      });
      column.dataset.interaction = response.headers.get("x-whet-interaction-id") || "";
      const by = response.headers.get("x-whet-adapter");
      for await (const event of events(response)) {
        if (event.error) throw new Error(event.error.message || "The answer broke off.");
        if (event.whet) showPassages(passages, event.whet);
        const delta = event.choices && event.choices[0] && event.choices[0].delta;
        const piece = delta && (delta.content || (delta.tool_calls ? JSON.stringify(delta.tool_calls) : ""));
        if (piece) {
          if (!first) { first = performance.now(); answer.classList.remove("waiting"); }
          text.append(piece);
        }
        if (event.usage) usage = event.usage;
      }
      if (text.textContent) await showRendered(answer, text).catch(() => { /* the letters stay */ });
      if (passages.childElementCount) linkMarks(answer, passages);
      if (!text.textContent) { text.className = "muted"; text.textContent = "The answer was empty."; }
      const seconds = (performance.now() - (first || began)) / 1000;
      const tokens = usage && usage.completion_tokens;
      facts.textContent = [by, first ? "first token " + Math.round(first - began) + " ms" : "", tokens ? tokens + " tokens" : "", tokens > 1 && seconds > 0.02 ? Math.round((tokens - 1) / seconds) + " tokens/s" : ""].filter(Boolean).join(" · ");
      if (column.dataset.interaction) {
        column.querySelector("[data-open]").href = "/traffic/" + encodeURIComponent(column.dataset.interaction);
        after.hidden = false;
      }
    } catch (error) {
      if (stopped) { facts.textContent = "stopped"; }
      else {
        answer.classList.add("failed");
        const sentence = document.createElement("p");
        sentence.className = "problem";
        sentence.setAttribute("role", "alert");
        sentence.textContent = error instanceof TypeError ? "The console does not answer." : error.message;
        answer.append(sentence);
      }
    } finally {
      answer.classList.remove("waiting");
    }
  }

  function stop() { running.forEach((item) => item.abort()); }

  async function start() {
    if (running.length || !form.reportValidity()) return;
    const chosen = columns.filter((column) => column.querySelector("[data-model]").value);
    if (!chosen.length) { window.whet.say("Choose a model in at least one column.", "bad"); return; }
    const question = values();
    keepAddress(question);
    askButton.disabled = true;
    stopButton.hidden = false;
    await Promise.all(chosen.map((column) => ask(column, question)));
    running = [];
    askButton.disabled = false;
    stopButton.hidden = true;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.submitter && event.submitter.matches("[data-correct]")) {
      const correct = document.getElementById("correct");
      correct.elements.interaction.value = event.submitter.closest("[data-column]").dataset.interaction;
      correct.submit();
      return;
    }
    start();
  });
  const retrieval = form.elements.retrieval;
  const showRetrieval = () => columns.forEach((column) => { column.querySelector("[data-rag-label]").hidden = !retrieval || retrieval.value === WITHOUT; });
  if (retrieval) retrieval.addEventListener("change", showRetrieval);
  showRetrieval();
  stopButton.addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); start(); }
    if (event.key === "Escape" && running.length) stop();
  });
})();
