// The plots of one run, which share their steps: grad norm, loss, learning rate. Each draws a mean with a band from minimum
// to maximum where a point stands for many steps, so that no spike is lost at any zoom.
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const short = (value) => (value == null || !isFinite(value) ? "–" : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(3) : Number(value.toPrecision(5)).toString());

// [low, middle, high] for dygraphs' custom bars; null where there is nothing.
const bar = (low, middle, high) => (middle == null ? null : [low ?? middle, middle, high ?? middle]);
const positive = (value) => (value != null && value > 0 ? value : null);
const flat = (value) => (value == null ? null : [value, value, value]);

function at(columns, name, i) {
  return columns[name] === undefined ? null : columns[name][i];
}

// Rows of [step, series...] over the steps of both attempts.
function joined(parts, series) {
  const rows = new Map();
  parts.forEach((part, which) => {
    const steps = part?.step ?? [];
    for (let i = 0; i < steps.length; ++i) {
      const row = rows.get(steps[i]) ?? [steps[i], ...new Array(series.length).fill(null)];
      series.forEach((one, at) => {
        if (one.part === which) row[at + 1] = one.value(part, i);
      });
      rows.set(steps[i], row);
    }
  });
  return [...rows.values()].sort((a, b) => a[0] - b[0]);
}

const NORMS = [
  { name: "grad norm", part: 0, color: "--norm", value: (h, i) => bar(positive(at(h, "norm_min", i)), positive(h.norm[i]), positive(at(h, "norm_max", i))) },
  { name: "rolling mean", part: 1, color: "--mean", value: (h, i) => flat(positive(h.mean[i])) },
  { name: "threshold", part: 1, color: "--limit", value: (h, i) => flat(positive(h.threshold[i])) },
  { name: "other attempt", part: 2, color: "--other", value: (h, i) => bar(positive(at(h, "norm_min", i)), positive(h.norm[i]), positive(at(h, "norm_max", i))) },
];
const loss = (h, i) => (h.loss ? flat(h.loss[i]) : at(h, "loss_min", i) == null ? null : [h.loss_min[i], (h.loss_min[i] + h.loss_max[i]) / 2, h.loss_max[i]]);
const LOSSES = [
  { name: "loss", part: 0, color: "--loss", value: loss },
  { name: "other attempt", part: 2, color: "--other", value: loss },
];
const RATES = [
  { name: "learning rate", part: 1, color: "--norm", value: (h, i) => flat(h.rate[i]) },
  { name: "other attempt", part: 3, color: "--other", value: (h, i) => flat(h.rate[i]) },
];

// A row for a plot that has nothing yet; above 0, as a log axis needs it.
const nothing = (series) => [[0, ...series.map(() => [1, 1, 1])]];

export class Plots {
  // onZoom(first, last) is called when the user has chosen a part of the steps; onZoom() for all of them.
  constructor(onZoom) {
    this.onZoom = onZoom;
    this.events = [];
    this.history = this.other = null;
    this.logLoss = false;
    this.plots = [
      this.make("norm", NORMS, { logscale: true, underlayCallback: (canvas, area, plot) => this.mark(canvas, area, plot) }),
      this.make("loss", LOSSES, { underlayCallback: (canvas, area, plot) => this.markEvents(canvas, area, plot) }),
      this.make("rate", RATES, { axes: { y: { axisLabelFormatter: (value) => value.toExponential(0), axisLabelWidth: 60 } } }),
    ];
  }

  make(name, series, options) {
    const legend = document.getElementById(`${name}-legend`);
    const plot = new Dygraph(document.getElementById(`${name}-plot`), nothing(series), {
      labels: ["step", ...series.map((one) => one.name)],
      customBars: true, connectSeparatedPoints: true, strokeWidth: 1, legend: "never", fillAlpha: 0.25, animatedZooms: false,
      axes: { x: { axisLabelFormatter: (value) => String(value) }, y: { axisLabelFormatter: short, axisLabelWidth: 60 } },
      highlightCircleSize: 2, gridLineWidth: 0.5, xRangePad: 4, labelsUTC: true,
      zoomCallback: (first, last) => this.zoomed(plot, first, last),
      highlightCallback: (event, step, points) => {
        const values = points.filter((point) => point.yval != null && !isNaN(point.yval)).map((point) => `${point.name} ${short(point.yval)}`);
        legend.textContent = `step ${step}: ${values.join(", ")}${name === "norm" ? this.decisionAt(step) : ""}`;
      },
      unhighlightCallback: () => { legend.textContent = ""; },
      ...options,
    });
    return { name, series, plot };
  }

  decisionAt(step) {
    const h = this.history;
    const i = h?.step.indexOf(step) ?? -1;
    if (i < 0) return "";
    const words = [["clipped", h.clipped[i]], ["skipped", h.skipped[i]], ["not finite", h.non_finite[i]]].filter(([, count]) => count > 0);
    return words.map(([word, count]) => `, ${count > 1 ? `${count} ` : ""}${word}`).join("");
  }

  zoomed(plot, first, last) {
    if (this.quiet) return;
    plot.isZoomed("x") ? this.onZoom(Math.max(0, Math.floor(first)), Math.ceil(last)) : this.onZoom();
  }

  // parts: what has each point, and what has thresholds and rates (the same where every step is there).
  draw(history, other, events) {
    this.history = history;
    this.events = events;
    const parts = [history, history?.samples ?? history, other, other?.samples ?? other].map((part) => (part?.step ? part : null));
    const steps = history?.step ?? [];
    const range = steps.length ? [steps[0], Math.max(steps[steps.length - 1], steps[0] + 1)] : null;
    for (const { name, series, plot } of this.plots) {
      const rows = joined(parts, series);
      this.quiet = true;
      plot.updateOptions({
        file: rows.length ? rows : nothing(series),
        dateWindow: range, colors: series.map((one) => css(one.color)), axisLineColor: css("--line"), gridLineColor: css("--line"),
        logscale: name === "norm" || (name === "loss" && this.logLoss),
        visibility: series.map((one) => one.part < 2 || other != null),
      });
      this.quiet = false;
    }
  }

  // Clipped and skipped steps along the bottom, steps that are not finite along the top.
  mark(canvas, area, plot) {
    this.markEvents(canvas, area, plot);
    const h = this.history;
    if (!h?.step) return;
    const tick = (name, color, y, height) => {
      canvas.fillStyle = css(color);
      for (let i = 0; i < h.step.length; ++i) {
        if (h[name][i] > 0) canvas.fillRect(plot.toDomXCoord(h.step[i]) - 1, y, 2, height);
      }
    };
    tick("clipped", "--mean", area.y + area.h - 5, 5);
    tick("skipped", "--critical", area.y + area.h - 12, 7);
    tick("non_finite", "--critical", area.y, 8);
  }

  markEvents(canvas, area, plot) {
    for (const event of this.events) {
      const x = plot.toDomXCoord(event.start);
      const width = Math.max(2, plot.toDomXCoord(event.end ?? event.peak) - x);
      if (x > area.x + area.w || x + width < area.x) continue;
      canvas.globalAlpha = event.severity === "info" ? 0.12 : 0.3;
      canvas.fillStyle = css(`--${event.severity}`);
      canvas.fillRect(x - 1, area.y, width + 1, area.h);
      canvas.globalAlpha = 1;
    }
  }

  zoomBy(factor, shift = 0) {
    const [first, last] = this.plots[0].plot.xAxisRange();
    const middle = (first + last) / 2 + shift * (last - first);
    const half = ((last - first) / 2) * factor;
    this.onZoom(Math.max(0, Math.floor(middle - half)), Math.max(1, Math.ceil(middle + half)));
  }
}
