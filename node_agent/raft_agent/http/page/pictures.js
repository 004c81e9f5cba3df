// Latency over time, as heat maps: a column is a second, a row twice as long as the one below it.

import { el, color, prepare, setText } from "./dom.js";
import { count, duration, rate } from "./format.js";
import { percentile, WINDOW_S } from "./samples.js";

const HEIGHT = 168;
const LEFT = 52;
const BOTTOM = 4;
// From 32 µs to 4 s; what is outside is drawn at the edge.
const FIRST = 6;
const LAST = 22;
const LINES = [[100, "100 µs"], [1e3, "1 ms"], [1e4, "10 ms"], [1e5, "100 ms"], [1e6, "1 s"]];
const RECENT_S = 30;

const PICTURES = [
  ["commit", "Commit", "proposals made at this node, until applied"],
  ["fsync", "Disk", "fsync of the log"],
  ["wire", "Wire", "heartbeat to a member and back"],
  ["loop_lag", "Loop lag", "how late the agent's event loop is"],
];

export class Pictures {
  #panels;

  constructor(parent) {
    this.#panels = PICTURES.map(([name, title, text]) => {
      const canvas = el("canvas", { height: HEIGHT, role: "img" });
      const numbers = el(
        "p",
        { class: "numbers" },
        ...["median", "worst", "rate"].map((kind) => el("span", { class: kind })),
      );
      const empty = el("p", { class: "empty", hidden: "" });
      parent.append(
        el(
          "figure",
          { class: "card picture", "data-latency": name },
          el("figcaption", {}, el("h3", {}, title), el("span", {}, text), numbers),
          el("div", { class: "canvas" }, canvas, empty),
        ),
      );
      return { name, title, canvas, numbers, empty };
    });
  }

  // `why`: for a picture without anything, by name.
  draw(samples, why) {
    const palette = {
      heat: color("--heat"), grid: color("--line"), ink: color("--muted"),
      median: color("--median"), worst: color("--worst"),
    };
    for (const panel of this.#panels) this.#drawOne(panel, samples, palette, why);
  }

  #drawOne(panel, samples, palette, why) {
    const { buckets, seconds } = samples.recent(panel.name, RECENT_S);
    const total = buckets.reduce((sum, number) => sum + number, 0);
    const middle = percentile(buckets, 0.5);
    const worst = percentile(buckets, 0.99);
    panel.numbers.hidden = !total;
    if (total) {
      const texts = [duration(middle), duration(worst), `${rate(total / seconds)}/s`];
      texts.forEach((text, place) => setText(panel.numbers.children[place], text));
    }
    const columns = samples.columns;
    const any = columns.some((c) => c.latencies[panel.name].some((number) => number > 0));
    panel.empty.hidden = any;
    setText(panel.empty, any ? "" : (why[panel.name] ?? "Nothing in the last two minutes"));
    panel.canvas.setAttribute(
      "aria-label",
      total
        ? `${panel.title}: median ${duration(middle)}, 99th percentile ${duration(worst)}, ` +
          `${count(total)} in ${Math.round(seconds)} seconds`
        : `${panel.title}: nothing`,
    );
    const { context, width } = prepare(panel.canvas, HEIGHT);
    const area = new Area(context, width, samples.now);
    area.drawGrid(palette);
    area.drawHeat(columns, panel.name, palette.heat);
    area.drawLine(columns, panel.name, 0.99, palette.worst);
    area.drawLine(columns, panel.name, 0.5, palette.median);
  }
}

class Area {
  constructor(context, width, now) {
    this.context = context;
    this.width = width;
    this.now = now;
    this.rows = LAST - FIRST + 1;
    this.bottom = HEIGHT - BOTTOM;
  }

  x(at) {
    return LEFT + (1 - (this.now - at) / WINDOW_S) * (this.width - LEFT);
  }

  y(us) {
    const row = Math.min(Math.max(Math.log2(us) - (FIRST - 1), 0), this.rows);
    return this.bottom - (row / this.rows) * this.bottom;
  }

  drawGrid(palette) {
    const { context } = this;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const [us, label] of LINES) {
      const y = Math.round(this.y(us)) + 0.5;
      context.strokeStyle = palette.grid;
      context.beginPath();
      context.moveTo(LEFT, y);
      context.lineTo(this.width, y);
      context.stroke();
      context.fillStyle = palette.ink;
      context.fillText(label, LEFT - 8, y);
    }
  }

  drawHeat(columns, name, heat) {
    const { context } = this;
    const height = this.bottom / this.rows;
    context.fillStyle = heat;
    for (const column of columns) {
      const buckets = column.latencies[name];
      const total = buckets.reduce((sum, number) => sum + number, 0);
      if (!total) continue;
      const right = this.x(column.at);
      const left = Math.max(LEFT, this.x(column.at - column.seconds));
      const cells = new Array(this.rows).fill(0);
      buckets.forEach((number, place) => {
        cells[Math.min(Math.max(place - FIRST, 0), this.rows - 1)] += number;
      });
      cells.forEach((number, row) => {
        if (!number) return;
        context.globalAlpha = 0.14 + 0.86 * Math.sqrt(number / total);
        const top = this.bottom - (row + 1) * height;
        context.fillRect(left + 0.5, top + 0.5, Math.max(right - left - 1, 1), height - 1);
      });
    }
    context.globalAlpha = 1;
  }

  drawLine(columns, name, share, stroke) {
    const { context } = this;
    context.strokeStyle = stroke;
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    context.beginPath();
    let before = null;
    for (const column of columns) {
      const us = percentile(column.latencies[name], share);
      if (us === null) {
        before = null;
        continue;
      }
      const x = Math.max(LEFT, this.x(column.at - column.seconds / 2));
      const y = this.y(us);
      if (before === null || column.at - before > 3) context.moveTo(x, y);
      else context.lineTo(x, y);
      before = column.at;
    }
    context.stroke();
    context.lineWidth = 1;
  }
}
