// Runs before the first paint, so that a chosen theme never flashes the other one.
(function () {
  var root = document.documentElement;
  root.dataset.js = "";
  var chosen = null, letters = null;
  try {
    chosen = localStorage.getItem("whet.theme");
    letters = localStorage.getItem("whet.raw-text");
  } catch (error) { /* storage is off: the system decides */ }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  if (letters) root.classList.add("raw-text");
})();
