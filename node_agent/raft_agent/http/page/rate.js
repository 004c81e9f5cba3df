// Entries committed a second, over the last two minutes.

import { byId, color, prepare, setText } from "./dom.js";
import { count, rate } from "./format.js";
import { WINDOW_S } from "./samples.js";

const HEIGHT = 96;
const RECENT_S = 5;

export function drawRate(samples) {
  const canvas = byId("rate");
  const columns = samples.columns;
  const recent = columns.filter((column) => column.at > samples.now - RECENT_S);
  const entries = recent.reduce((sum, column) => sum + column.rate * column.seconds, 0);
  const seconds = recent.reduce((sum, column) => sum + column.seconds, 0);
  const now = seconds ? entries / seconds : 0;
  const most = Math.max(0, ...columns.map((column) => column.rate));
  setText(byId("log-rate"), `${rate(now)} entries/s, at most ${rate(most)} in two minutes`);
  canvas.setAttribute("aria-label", `${count(now)} entries are committed a second`);
  const { context, width } = prepare(canvas, HEIGHT);
  const top = Math.max(most, 1);
  const x = (at) => (1 - (samples.now - at) / WINDOW_S) * width;
  const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 10);
  context.strokeStyle = color("--line");
  context.beginPath();
  context.moveTo(0, HEIGHT - 1.5);
  context.lineTo(width, HEIGHT - 1.5);
  context.stroke();
  if (columns.length < 2) return;
  const accent = color("--accent");
  const line = new Path2D();
  columns.forEach((column, place) => {
    if (place) line.lineTo(x(column.at), y(column.rate));
    else line.moveTo(x(column.at), y(column.rate));
  });
  const area = new Path2D(line);
  area.lineTo(x(columns.at(-1).at), HEIGHT - 2);
  area.lineTo(x(columns[0].at), HEIGHT - 2);
  const shade = context.createLinearGradient(0, 0, 0, HEIGHT);
  shade.addColorStop(0, accent);
  shade.addColorStop(1, "transparent");
  context.globalAlpha = 0.28;
  context.fillStyle = shade;
  context.fill(area);
  context.globalAlpha = 1;
  context.strokeStyle = accent;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.stroke(line);
}
