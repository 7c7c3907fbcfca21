// Charts: uPlot with this page's colours, keys and words. Every chart has its numbers in a table beside it.

import { h, measured, say } from "./dom.js";
import * as f from "./format.js";

const { uPlot } = window;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const hidden = { show: false };
const noon = (date) => Date.parse(`${date}T00:00:00Z`) / 1000;

function hatched(front, back) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.fillStyle = back;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = front;
  pen.lineWidth = 2;
  pen.beginPath();
  for (const shift of [-8, 0, 8]) {
    pen.moveTo(shift, 8);
    pen.lineTo(shift + 8, 0);
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat");
}

const axes = (x) => {
  const common = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, font: "12px system-ui, sans-serif" };
  return [
    { ...common, grid: hidden, ...x },
    { ...common, size: 52, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? f.count(tick) : "")) },
  ];
};

function frame(label, height, make, { keys, words, hint } = {}) {
  const readout = h("p", { class: "readout" }, hint || " ");
  const canvas = h("div", { class: "canvas", tabindex: keys ? "0" : null, role: keys ? "group" : "img", "aria-label": label });
  canvas.style.setProperty("min-height", `${height}px`);
  let chart = null;
  let width = 0;
  const tell = (at, aloud) => {
    const text = at === null || at === undefined ? hint || " " : words(at);
    readout.textContent = text;
    if (aloud) say(text);
  };
  const draw = () => {
    if (!width || !canvas.isConnected) return;
    if (chart) chart.destroy();
    chart = make(width, height, tell);
    canvas.replaceChildren(chart.root);
  };
  measured(canvas, (now) => {
    width = now;
    if (chart) chart.setSize({ width, height });
    else draw();
  });
  for (const [target, name] of [[matchMedia("(prefers-color-scheme: dark)"), "change"], [document, "theme"]]) {
    const redraw = () => (canvas.isConnected ? requestAnimationFrame(draw) : target.removeEventListener(name, redraw));
    target.addEventListener(name, redraw);
  }
  if (keys) keys(canvas, tell, () => chart);
  const place = h("div", { class: "chart" }, canvas, readout);
  place.update = (data) => chart && chart.setData(data);
  return place;
}

// rows: {date, rides, premature, partial, mean, lo80, hi80, lo95, hi95, said}, one a day, in order; null where there is none.
export function dayChart(rows, { pick }) {
  const xs = rows.map((row) => noon(row.date));
  const of = (get) => rows.map((row) => get(row) ?? null);
  const data = [
    xs,
    of((r) => r.hi95),
    of((r) => r.lo95),
    of((r) => r.hi80),
    of((r) => r.lo80),
    of((r) => (r.partial ? null : r.rides)),
    of((r) => (r.partial ? r.rides : null)),
    of((r) => r.premature),
    of((r) => r.mean),
    of((r) => r.said),
  ];
  const words = (at) => dayWords(rows[at]);
  const bars = uPlot.paths.bars({ size: [0.72, 28] });
  const make = (width, height, tell) =>
    new uPlot(
      {
        width,
        height,
        padding: [12, 24, 0, 0],
        legend: hidden,
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
        cursor: { y: false, points: hidden, drag: { x: false, y: false } },
        scales: { x: { time: true, range: (_, low, high) => [low - 43200, high + 43200] }, y: { range: (_, low, high) => [0, Math.max(4, high * 1.08)] } },
        axes: axes({ space: 64, values: (_, ticks) => ticks.map((tick) => (tick % 86400 ? "" : f.day(new Date(tick * 1000).toISOString().slice(0, 10)).split(" ").slice(1).join(" "))) }),
        series: [
          {},
          { stroke: "transparent", points: hidden, width: 0 },
          { stroke: "transparent", points: hidden, width: 0 },
          { stroke: "transparent", points: hidden, width: 0 },
          { stroke: "transparent", points: hidden, width: 0 },
          { paths: bars, fill: colour("rides"), stroke: colour("rides"), width: 0, points: hidden },
          { paths: bars, fill: hatched(colour("rides"), colour("card")), stroke: colour("rides"), width: 1.5, points: hidden },
          { paths: bars, fill: colour("early"), stroke: colour("card"), width: 0, points: hidden },
          { stroke: colour("forecast"), width: 2, points: hidden },
          { stroke: colour("said"), width: 2, dash: [5, 4], points: { show: true, size: 5, fill: colour("card") } },
        ],
        bands: [
          { series: [1, 2], fill: colour("band95") },
          { series: [3, 4], fill: colour("band80") },
        ],
        hooks: {
          setCursor: [(u) => tell(u.cursor.idx, false)],
          ready: [(u) => u.over.addEventListener("click", () => u.cursor.idx !== null && rows[u.cursor.idx].rides !== undefined && pick(rows[u.cursor.idx]))],
        },
      },
      data,
    );
  const keys = (canvas, tell, chart) => {
    let at = rows.findLastIndex((row) => row.rides !== undefined);
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -7, PageDown: 7, Home: -rows.length, End: rows.length }[event.key];
      if (event.key === "Enter" && rows[at] && rows[at].rides !== undefined) pick(rows[at]);
      if (!step) return;
      event.preventDefault();
      at = Math.max(0, Math.min(rows.length - 1, at + step));
      const u = chart();
      if (u) u.setCursor({ left: u.valToPos(xs[at], "x"), top: 0 });
      tell(at, true);
    });
  };
  return frame("Rides per day and the forecast. Left and right arrows go from day to day, Enter opens a day; the table below has the same numbers.", 300, make, { keys, words, hint: "Point at a day to read it, click to open it; or use the arrow keys and Enter." });
}

function dayWords(row) {
  const said = [];
  if (row.rides !== undefined) {
    said.push(`${f.plural(row.rides, "ride")}${row.partial ? " so far" : ""}`);
    if (row.premature) said.push(`${f.count(row.premature)} ended early`);
  }
  if (row.said !== undefined) said.push(`had been forecast: ${f.count(row.said)}`);
  if (row.mean !== undefined) said.push(`forecast ${f.count(row.mean)}, with 80 % between ${f.count(row.lo80)} and ${f.count(row.hi80)}, with 95 % between ${f.count(row.lo95)} and ${f.count(row.hi95)}`);
  return `${f.day(row.date)}: ${said.join("; ")}`;
}

// A line that grows: data is [seconds, values].
export function rateChart(label, data, unit) {
  let now = data;
  const make = (width, height, tell) =>
    new uPlot(
      {
        width,
        height,
        padding: [10, 8, 0, 0],
        legend: hidden,
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), f.zone()),
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
        axes: axes({ space: 80, values: (_, ticks) => ticks.map((tick) => f.time(tick * 1000)) }),
        series: [{}, { stroke: colour("rides"), fill: colour("band80"), width: 2, points: hidden }],
        hooks: { setCursor: [(u) => tell(u.cursor.idx, false)] },
      },
      now,
    );
  const place = frame(label, 170, make, { words: (at) => (now[0][at] ? `${f.time(now[0][at] * 1000)}: ${f.tenth(now[1][at])} ${unit}` : " ") });
  const update = place.update;
  place.update = (fresh) => update((now = fresh));
  return place;
}
