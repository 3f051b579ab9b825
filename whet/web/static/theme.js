// Runs before the first paint, so that a chosen theme never flashes the other one.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("whet.theme"); } catch (error) { /* storage is off: the system decides */ }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
