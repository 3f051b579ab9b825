// The browser's chart in place of the drawn one: values under the pointer. Without it the page reads the same.
(function () {
  "use strict";
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const plots = [];

  function text(value, data) {
    if (value === null || value === undefined) return "";
    if (data.share) return (100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0) + " %";
    const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : 2;
    return value.toFixed(digits) + (data.unit ? " " + data.unit : "");
  }

  function draw(holder) {
    const data = JSON.parse(holder.dataset.chart);
    const small = Boolean(holder.closest(".small"));
    const values = data.series.map((point) => point[1]);
    const onset = data.since === null ? -1 : data.series.findIndex((point) => point[0] >= data.since);
    const value = document.createElement("div");
    value.className = "drift-value";
    holder.replaceChildren();
    holder.classList.add("live");

    const line = (u, index, colour, dash) => {
      const x = Math.round(u.valToPos(index, "x", true));
      u.ctx.save();
      u.ctx.strokeStyle = colour;
      u.ctx.lineWidth = devicePixelRatio;
      u.ctx.setLineDash(dash.map((part) => part * devicePixelRatio));
      u.ctx.beginPath();
      u.ctx.moveTo(x, u.bbox.top);
      u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
      u.ctx.restore();
    };
    const axis = { stroke: token("--ink-3"), font: "11px system-ui, sans-serif", grid: { stroke: token("--line"), width: 1 }, ticks: { show: false } };
    const plot = new window.uPlot({
      width: Math.max(120, holder.clientWidth),
      height: small ? 88 : 180,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 6 } },
      scales: { x: { time: false }, y: { range: (u, low, high) => [data.share ? 0 : low - 0.05 * (high - low || 1), high + 0.05 * (high - low || 1)] } },
      axes: [
        { show: false },
        Object.assign({}, axis, { size: small ? 40 : 56, space: small ? 30 : 40, values: (u, splits) => splits.map((split) => text(split, data)) }),
      ],
      series: [{}, { stroke: token("--accent"), width: 1.6, points: { show: false } }],
      hooks: {
        draw: [(u) => {
          if (data.split < values.length) line(u, Math.max(0, data.split - 0.5), token("--line-strong"), [4, 3]);
          if (onset >= 0) line(u, onset, token("--attention"), []);
        }],
        setCursor: [(u) => {
          const index = u.cursor.idx;
          if (index === null || index === undefined) { value.textContent = onset >= 0 ? "The coloured line: where the change began." : ""; return; }
          value.textContent = text(values[index], data) + ", " + new Date(data.series[index][0]).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
        }],
      },
    }, [values.map((_, index) => index), values], holder);
    if (!small) { holder.append(value); value.textContent = onset >= 0 ? "The coloured line: where the change began." : ""; }
    return plot;
  }

  function all() {
    for (const plot of plots.splice(0)) plot.destroy();
    for (const holder of document.querySelectorAll("[data-chart]")) plots.push(draw(holder));
  }

  if (!window.uPlot) return;
  all();
  document.addEventListener("whet:theme", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  let waiting = 0;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(all, 150); });
})();
