// The loss curve of a run: drawn by uPlot, followed while the run goes on. Without this script the page shows a still curve.
(function () {
  "use strict";
  const place = document.querySelector("[data-curve]");
  if (!place || !window.uPlot) return;
  let plot = null;
  let points = 0;
  let kinds = ""; // which lines are drawn, and how: one without values has no place in the legend
  const WIDE = 50; // times the lowest loss that the highest is: from there on a straight scale shows a run's end as a flat line

  function token(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  // Loss, learning rate and validation loss by step: a check on validation rows may fall on a step that the thinned curve left out.
  function columns(curve, validation) {
    const checked = new Map(validation), of = new Map(curve.map((point) => [point[0], point]));
    const steps = [...new Set([...of.keys(), ...checked.keys()])].sort((a, b) => a - b);
    const at = (step, place) => (of.has(step) && of.get(step)[place] !== undefined ? of.get(step)[place] : null);
    return { step: steps, loss: steps.map((step) => at(step, 1)), validation: steps.map((step) => (checked.has(step) ? checked.get(step) : null)), rate: steps.map((step) => at(step, 3)) };
  }

  // An axis that marks and names powers of ten alone.
  function decades(axis) {
    const filter = (self, values) => values.map((value) => (Number.isInteger(Math.round(Math.log10(value) * 1e9) / 1e9) ? value : null));
    return { size: 64, filter, values: (self, values) => values.map((value) => (value == null ? "" : String(Number(value.toPrecision(1))))), grid: Object.assign({ filter }, axis.grid), ticks: Object.assign({ filter }, axis.ticks) };
  }

  function draw(curve, validation) {
    if (curve.length < 2) return;
    const of = columns(curve, validation);
    const drawn = ["loss", "validation", "rate"].filter((name) => of[name].some((value) => value !== null));
    const data = [of.step, ...drawn.map((name) => of[name])];
    const losses = [...of.loss, ...of.validation].filter((value) => value !== null);
    const wide = Math.min(...losses) > 0 && Math.max(...losses) > WIDE * Math.min(...losses);
    if (plot && kinds === drawn.join() + wide) { plot.setData(data); return; }
    if (plot) plot.destroy();
    kinds = drawn.join() + wide;
    const axis = { stroke: token("--ink-3"), grid: { stroke: token("--line"), width: 1 }, ticks: { stroke: token("--line"), width: 1 }, font: "12px " + token("--sans") };
    const nats = (self, value) => value == null ? "–" : value.toFixed(4);
    const lines = {
      loss: { label: wide ? "loss, on a logarithmic scale" : "loss", stroke: token("--accent"), width: 1.5, points: { show: false }, value: nats, spanGaps: true },
      validation: { label: "loss on validation rows", stroke: token("--ink"), width: 1.5, spanGaps: true, value: nats },
      rate: { label: "learning rate, on a scale of its own", scale: "rate", stroke: token("--ink-3"), width: 1, dash: [4, 4], points: { show: false }, spanGaps: true, value: (self, value) => value == null ? "–" : value.toExponential(1) },
    };
    place.replaceChildren();
    plot = new uPlot({
      width: place.clientWidth, height: 260, cursor: { points: { size: 6 } }, legend: { live: true },
      scales: { rate: { range: (self, low, high) => [0, high * 1.05 || 1] }, x: { time: false, range: (self, low, high) => [low, Math.max(high, Number(place.dataset.steps) || 0)] }, y: wide ? { distr: 3 } : { range: (self, low, high) => [Math.min(0, low), high * 1.05] } },
      series: [{ label: "step" }, ...drawn.map((name) => lines[name])],
      axes: [axis, Object.assign({ size: 46 }, axis, wide ? decades(axis) : {})],
    }, data, place);
  }

  async function turn() {
    try {
      const response = await window.whet.send(place.dataset.curve);
      const answer = await response.json();
      if (answer.curve.length + answer.validation.length !== points) { points = answer.curve.length + answer.validation.length; last = [answer.curve, answer.validation]; draw(...last); }
      if (answer.state !== "running") {
        if (place.dataset.running !== undefined) location.reload(); // it ended while we watched: the verdict is on the page now
        return;
      }
    } catch (error) { /* the live part above says that the console does not answer */ }
    if (place.dataset.running !== undefined) setTimeout(turn, document.hidden ? 8000 : 2000);
  }
  let last = [[], []];
  turn();

  const again = () => { if (plot) { plot.destroy(); plot = null; draw(...last); } };
  document.addEventListener("whet:theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(() => { if (plot && Math.abs(plot.width - place.clientWidth) > 4) plot.setSize({ width: place.clientWidth, height: 260 }); }).observe(place);
})();
