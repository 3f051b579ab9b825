// Sends files one after the other and shows how far each is. What becomes of a file once it is here stands in the live part below.
(function () {
  "use strict";
  const place = document.querySelector("[data-upload]");
  if (!place) return;
  const drop = place.querySelector("[data-drop]");
  const list = place.querySelector("[data-sending]");
  const largest = Number(place.dataset.largest);
  const AT_ONCE = 2; // one file is written while the next is on its way; more would only share the line
  const waiting = [];
  let sending = 0;

  function row(path) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.className = "grow";
    name.textContent = path;
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", "sent of " + path);
    item.append(name, bar);
    list.append(item);
    list.hidden = false;
    return { item, name, bar };
  }

  function fail(shown, message) {
    shown.bar.remove();
    const words = document.createElement("span");
    words.className = "problem small-text";
    words.textContent = " " + message;
    shown.name.append(document.createElement("br"), words);
    shown.item.dataset.uploadState = "refused";
  }

  function sentence(request) {
    try {
      const error = JSON.parse(request.responseText).error;
      return [error.message, error.hint].filter(Boolean).join(" ");
    } catch (problem) { return "The console answered " + request.status + "."; }
  }

  function send({ file, path, shown }) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest(); // fetch does not tell how much was sent
      const query = new URLSearchParams({ address: path, modified: String(file.lastModified) });
      request.open("POST", place.dataset.upload + "?" + query);
      request.setRequestHeader("x-csrf-token", window.whet.csrf());
      request.setRequestHeader("accept", "application/json");
      request.setRequestHeader("content-type", "application/octet-stream");
      request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) shown.bar.value = event.loaded / event.total; });
      request.addEventListener("load", () => {
        if (request.status === 202) shown.item.remove(); else fail(shown, sentence(request));
        resolve();
      });
      request.addEventListener("error", () => { fail(shown, "It did not arrive: the connection broke. Drop it again."); resolve(); });
      request.send(file);
    });
  }

  async function work() {
    sending += 1;
    while (waiting.length) await send(waiting.shift());
    sending -= 1;
    list.hidden = !list.children.length;
  }

  function take(files) {
    for (const { file, path } of files) {
      const shown = row(path);
      if (file.size > largest) fail(shown, "It has " + file.size.toLocaleString() + " bytes; at most " + largest.toLocaleString() + " are read. Divide it.");
      else waiting.push({ file, path, shown });
    }
    while (sending < AT_ONCE && waiting.length > sending) work();
  }

  // A dropped folder is walked through; its files keep their paths in it.
  async function inside(entry, prefix) {
    if (entry.name.startsWith(".")) return [];
    if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path: prefix + entry.name }];
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return found;
      for (const one of some) found.push(...await inside(one, prefix + entry.name + "/"));
    }
  }

  async function dropped(transfer) {
    const entries = Array.from(transfer.items || []).map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    if (!entries.length) { take(Array.from(transfer.files).map((file) => ({ file, path: file.name }))); return; }
    try {
      for (const entry of entries) take(await inside(entry, ""));
    } catch (error) { window.whet.say("The browser could not read what was dropped: " + error.message, "bad"); }
  }

  place.querySelector("[data-files]").addEventListener("change", (event) => {
    take(Array.from(event.target.files).map((file) => ({ file, path: file.name })));
    event.target.value = ""; // the same file can be chosen again
  });
  const carries = (event) => event.dataTransfer && Array.from(event.dataTransfer.types).includes("Files");
  document.addEventListener("dragover", (event) => { if (carries(event)) { event.preventDefault(); drop.classList.add("over"); } });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    drop.classList.remove("over");
    dropped(event.dataTransfer);
  });
  window.addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });
})();
