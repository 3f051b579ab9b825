// The loss curve of a run: drawn by uPlot, followed while the run goes on. Without this script the page shows a still curve.
(function () {
  "use strict";
  const place = document.querySelector("[data-curve]");
  if (!place || !window.uPlot) return;
  let plot = null;
  let points = 0;

  function token(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function draw(curve) {
    const data = [curve.map((point) => point[0]), curve.map((point) => point[1])];
    if (plot) { plot.setData(data); return; }
    if (curve.length < 2) return;
    const axis = { stroke: token("--ink-3"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line"), width: 1 }, font: "12px " + token("--sans") };
    place.replaceChildren();
    plot = new uPlot({
      width: place.clientWidth, height: 260, cursor: { points: { size: 6 } }, legend: { live: true },
      scales: { x: { time: false, range: (self, low, high) => [low, Math.max(high, Number(place.dataset.steps) || 0)] }, y: { range: (self, low, high) => [Math.min(0, low), high * 1.05] } },
      series: [{ label: "step" }, { label: "loss", stroke: token("--accent"), width: 1.5, points: { show: false }, value: (self, value) => value == null ? "–" : value.toFixed(4) }],
      axes: [axis, Object.assign({ size: 46 }, axis)],
    }, data, place);
  }

  async function turn() {
    try {
      const response = await window.whet.send(place.dataset.curve);
      const answer = await response.json();
      if (answer.curve.length !== points) { points = answer.curve.length; last = answer.curve; draw(last); }
      if (answer.state !== "running") {
        if (place.dataset.running !== undefined) location.reload(); // it ended while we watched: the verdict is on the page now
        return;
      }
    } catch (error) { /* the live part above says that the console does not answer */ }
    if (place.dataset.running !== undefined) setTimeout(turn, document.hidden ? 8000 : 2000);
  }
  let last = [];
  turn();

  const again = () => { if (plot) { plot.destroy(); plot = null; draw(last); } };
  document.addEventListener("whet:theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(() => { if (plot && Math.abs(plot.width - place.clientWidth) > 4) plot.setSize({ width: place.clientWidth, height: 260 }); }).observe(place);
})();
