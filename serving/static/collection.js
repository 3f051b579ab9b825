// When what is in the collection has changed, the list of documents follows; not under the pointer.
(function () {
  "use strict";
  const place = document.querySelector("[data-collection]");
  if (!place || !window.htmx) return;
  const state = () => (place.querySelector("[data-documents]") || { dataset: {} }).dataset.documents || "";
  let shown = state();
  place.addEventListener("whet:live", () => {
    const rows = document.getElementById("rows");
    if (state() === shown || !rows || rows.matches(":hover") || rows.contains(document.activeElement)) return;
    shown = state();
    window.htmx.ajax("GET", location.pathname + location.search, { target: "#rows", swap: "outerHTML" });
  });
})();
