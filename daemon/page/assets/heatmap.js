// A heat map on a canvas: rows of groups or ranks, columns of steps, colour by how far a norm lies from the row's own median,
// so that small and large layers are seen alike.
const ROW = 14;
const MARGIN = 110;

function median(values) {
  const sorted = values.filter((value) => value != null && value > 0).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : null;
}

// From blue (a tenth) over the background to red (ten times).
function color(ratio, dark) {
  const x = Math.max(-1, Math.min(1, Math.log10(ratio)));
  const strength = Math.sqrt(Math.abs(x));
  const base = dark ? 34 : 245;
  const mix = (to) => Math.round(base + (to - base) * strength);
  return x >= 0 ? `rgb(${mix(214)},${mix(40)},${mix(40)})` : `rgb(${mix(40)},${mix(110)},${mix(220)})`;
}

// Where each column begins, in proportion to its steps but wide enough to be seen; and where the last one ends.
function edges(steps, width) {
  const least = Math.min(3, (width - MARGIN) / steps.length);
  const span = Math.max(1, steps.at(-1) - steps[0]) + (steps.at(-1) - steps[0]) / steps.length;
  const free = width - MARGIN - least * steps.length;
  return [...steps.map((step, i) => Math.round(MARGIN + i * least + (free * (step - steps[0])) / span)), width];
}

export class HeatMap {
  constructor(name, noun) {
    this.canvas = document.getElementById(`${name}-map`);
    this.legend = document.getElementById(`${name}-legend`);
    this.noun = noun;
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => { this.legend.textContent = ""; });
  }

  // names of rows; steps; columns[i][row].
  draw(names, steps, columns) {
    Object.assign(this, { names, steps, columns });
    const rows = names.length;
    this.canvas.hidden = rows === 0 || steps.length === 0;
    if (this.canvas.hidden) return;
    const height = Math.max(2, Math.min(ROW, Math.floor(900 / rows)));
    const scale = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth || 900;
    this.cell = { height, edges: edges(steps, width) };
    this.canvas.width = width * scale;
    this.canvas.height = rows * height * scale;
    this.canvas.style.height = `${rows * height}px`;
    const out = this.canvas.getContext("2d");
    out.scale(scale, scale);
    const dark = document.documentElement.dataset.theme === "dark";
    const style = getComputedStyle(document.documentElement);
    this.medians = names.map((_, row) => median(columns.map((column) => column[row])));
    out.font = "10px system-ui, sans-serif";
    out.textBaseline = "middle";
    for (let row = 0; row < rows; ++row) {
      columns.forEach((column, i) => {
        const value = column[row];
        out.fillStyle = value == null ? style.getPropertyValue("--critical") : color(value / this.medians[row] || 1, dark);
        const [left, right] = [this.cell.edges[i], this.cell.edges[i + 1]];
        out.fillRect(left, row * height, right - left, height);
      });
      if (height < 9 && row % Math.ceil(9 / height) !== 0) continue;
      out.fillStyle = style.getPropertyValue("--fore");
      out.fillText(names[row], 4, row * height + height / 2, MARGIN - 8);
    }
  }

  point(event) {
    if (!this.cell) return;
    const column = this.cell.edges.findLastIndex((edge) => edge <= event.offsetX);
    const row = Math.floor(event.offsetY / this.cell.height);
    if (column < 0 || column >= this.steps.length || row < 0 || row >= this.names.length) return;
    const value = this.columns[column][row];
    const words = value == null ? "not finite" : `${value.toPrecision(4)}, ${(value / this.medians[row]).toPrecision(3)} x its median`;
    this.legend.textContent = `${this.noun} ${this.names[row]}, step ${this.steps[column]}: ${words}`;
  }
}
