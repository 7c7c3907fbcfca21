// What happened when, in one lane a kind. The same entries are in a table below: this is for the eye.

import { h, measured, svg } from "./dom.js";
import * as f from "./format.js";

const LANES = [
  ["ride", "ride"],
  ["app_event", "app"],
  ["app_error", "app errors"],
  ["server_access", "requests"],
  ["server_error", "server errors"],
  ["message", "messages"],
];
const LANE = 34;
const TOP = 26;

export function timeline(entries, { begin, end, pickedUp }) {
  const near = entries.filter((entry) => entry.lane !== "message" || !end || entry.at <= end + 900_000);
  const lanes = LANES.filter(([lane]) => near.some((entry) => entry.lane === lane));
  const low = Math.min(begin - 30_000, ...near.map((entry) => entry.at));
  const high = Math.max(end || begin + 60_000, ...near.map((entry) => entry.at)) + 30_000;
  const readout = h("p", { class: "readout" }, `${f.plural(near.length, "entry", "entries")}; ${f.count(near.filter((entry) => entry.bad).length)} are errors in the ride. Point at one to read it.`);
  const place = h("div", { class: "canvas" });
  measured(place, (width) => place.replaceChildren(draw(width)));
  const after = entries.length - near.length;
  return h("div", { class: "chart" }, place, readout, after > 0 && h("p", { class: "note" }, `${f.plural(after, "message")} came later than is drawn.`));

  function draw(width) {
    const left = width < 560 ? 8 : 110;
    const x = (at) => left + ((at - low) / (high - low)) * (width - left - 14);
    const height = TOP + lanes.length * LANE + 26;
    const rows = lanes.map(([lane, text], at) => {
      const y = TOP + at * LANE + LANE / 2;
      return svg(
        "g",
        {},
        svg("line", { x1: left, x2: width, y1: y, y2: y, class: "lane" }),
        svg("text", { x: width < 560 ? left : 0, y: width < 560 ? y - 10 : y + 4, class: "lane-name" }, text),
        near.filter((entry) => entry.lane === lane).map((entry) => mark(entry, x(entry.at), y)),
      );
    });
    return svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height, class: "timeline", role: "img", "aria-label": `Timeline from ${f.moment(low)} to ${f.moment(high)}: ${lanes.map(([lane, text]) => `${near.filter((entry) => entry.lane === lane).length} ${text}`).join(", ")}` },
      pickedUp && end && end >= pickedUp && svg("rect", { x: x(pickedUp), width: Math.max(1, x(end) - x(pickedUp)), y: TOP - 6, height: lanes.length * LANE + 6, class: "driven" }),
      [["requested", begin], ["picked up", pickedUp], ["ended", end]].filter(([, at]) => at).map(([text, at]) => svg("g", { class: "edge" }, svg("line", { x1: x(at), x2: x(at), y1: TOP - 6, y2: height - 22 }), svg("text", { x: x(at), y: 14, "text-anchor": x(at) > width - 70 ? "end" : x(at) < left + 50 ? "start" : "middle" }, text))),
      rows,
      ticks(width, height, left, x),
    );
  }

  function mark(entry, x, y) {
    const bad = entry.bad || ["app_error", "server_error"].includes(entry.lane) || entry.status >= 500;
    const shape = entry.lane === "ride" ? svg("path", { d: `M${x} ${y - 8} L${x + 8} ${y} L${x} ${y + 8} L${x - 8} ${y} Z` }) : entry.lane === "message" ? svg("rect", { x: x - 6, y: y - 5, width: 12, height: 10, rx: 2 }) : bad ? svg("path", { d: `M${x} ${y - 8} L${x + 8} ${y + 6} L${x - 8} ${y + 6} Z` }) : svg("circle", { cx: x, cy: y, r: 4.5 });
    const text = `${f.time(entry.at)}  ${f.words(entry.lane)}: ${entry.name}${entry.status ? ` (${entry.status})` : ""}${entry.bad ? ", an error in the ride" : ""}`;
    const found = svg("g", { class: `mark ${entry.lane} ${bad ? "bad" : ""}` }, svg("title", {}, text), shape);
    found.addEventListener("pointerenter", () => (readout.textContent = text));
    return found;
  }

  function ticks(width, height, left, x) {
    const steps = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600].map((s) => 1000 * s);
    const step = steps.find((s) => (high - low) / s <= Math.max(2, (width - left) / 90)) || 43_200_000;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(svg("text", { x: x(at), y: height - 6, "text-anchor": x(at) > width - 40 ? "end" : "middle", class: "tick" }, step < 60_000 ? f.time(at) : f.clock(at)));
    return svg("g", {}, found);
  }
}
