// Traffic: choosing rows. Without it the boxes and buttons work one by one.
(function () {
  "use strict";
  const boxes = () => Array.from(document.querySelectorAll('#rows input[name="interaction"]'));
  let last = null; // the box that was clicked before, for ranges

  function show() {
    const bar = document.getElementById("chosen");
    const all = document.querySelector("[data-choose-all]");
    if (!bar || !all) return;
    const listed = boxes();
    const chosen = listed.filter((box) => box.checked).length;
    bar.classList.toggle("none", chosen === 0);
    bar.querySelector("[data-chosen-count]").textContent = chosen + " chosen";
    all.hidden = false;
    all.checked = chosen > 0 && chosen === listed.length;
    all.indeterminate = chosen > 0 && chosen < listed.length;
  }

  document.addEventListener("click", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement)) return;
    if (box.matches("[data-choose-all]")) boxes().forEach((one) => { one.checked = box.checked; });
    if (box.name === "interaction") {
      const listed = boxes();
      if (event.shiftKey && last && listed.includes(last)) {
        const ends = [listed.indexOf(last), listed.indexOf(box)].sort((a, b) => a - b);
        listed.slice(ends[0], ends[1] + 1).forEach((one) => { one.checked = box.checked; });
      }
      last = box;
    }
    show();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "x" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const box = document.querySelector('#rows tr.at input[name="interaction"]');
    if (box) { event.preventDefault(); box.click(); }
  });

  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.tool[open]")) if (!open.contains(event.target)) open.open = false;
  });
  document.addEventListener("htmx:afterSwap", show);
  window.addEventListener("pageshow", show); // boxes that the browser ticks again on the way back
  show();
})();
