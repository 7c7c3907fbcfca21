// A sketch of a ride's places, true to scale, drawn from their coordinates alone: no map is fetched from anywhere.

import { behind, empty, h, svg, table } from "./dom.js";
import * as f from "./format.js";

const RADIUS = 6_371_008.8;
const MATCHED = 250;
const W = 640;
const H = 400;
const EDGE = 56;
const NAMES = { pickup: "pick-up", destination: "destination", dropoff: "drop-off" };

export function mapSketch(ride) {
  const known = Object.keys(NAMES).filter((name) => ride[name] && ride[name].lat !== null && ride[name].lon !== null);
  if (!known.length) return empty("No places are known", "The ride has no coordinates to draw.");
  const origin = ride[known[0]];
  const metre = (place) => {
    const turn = ((((place.lon - origin.lon + 540) % 360) + 360) % 360) - 180;
    return [(turn * Math.PI * RADIUS * Math.cos((origin.lat * Math.PI) / 180)) / 180, ((place.lat - origin.lat) * Math.PI * RADIUS) / 180];
  };
  const spots = Object.fromEntries(known.map((name) => [name, metre(ride[name])]));
  const xs = Object.values(spots).map(([x]) => x);
  const ys = Object.values(spots).map(([, y]) => y);
  const span = Math.max((Math.max(...xs) - Math.min(...xs)) / (W - 2 * EDGE), (Math.max(...ys) - Math.min(...ys)) / (H - 2 * EDGE), 2.5);
  const middle = [(Math.max(...xs) + Math.min(...xs)) / 2, (Math.max(...ys) + Math.min(...ys)) / 2];
  const at = ([x, y]) => [W / 2 + (x - middle[0]) / span, H / 2 - (y - middle[1]) / span];
  const place = Object.fromEntries(known.map((name) => [name, at(spots[name])]));
  const line = (a, b, kind) => place[a] && place[b] && svg("line", { x1: place[a][0], y1: place[a][1], x2: place[b][0], y2: place[b][1], class: kind });
  const missed = ride.destination_matched === false;
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${W} ${H}`, class: "map", role: "img", "aria-label": summary(ride, known) },
    grid(span),
    place.destination && svg("circle", { cx: place.destination[0], cy: place.destination[1], r: Math.max(MATCHED / span, 3), class: "matched" }),
    line("pickup", "destination", "asked"),
    line("pickup", "dropoff", "driven"),
    missed && line("dropoff", "destination", "gap"),
    known.map((name) => marker(name, place[name])),
    labels(known, place, missed),
    scale(span),
    svg("g", { class: "north", transform: `translate(${W - 26} 34)` }, svg("path", { d: "M0 -16 L6 4 L0 0 L-6 4 Z" }), svg("text", { y: 18, "text-anchor": "middle" }, "N")),
  );
  const columns = [
    ["Place", (name) => NAMES[name]],
    ["Latitude", (name) => ride[name].lat.toFixed(5), "number"],
    ["Longitude", (name) => ride[name].lon.toFixed(5), "number"],
  ];
  return h(
    "div",
    {},
    drawing,
    h("p", { class: "note" }, "Straight lines between the places, to scale. The circle is how near (250 m) counts as reached."),
    behind("The places as a table", () => table("Places of the ride", columns, known)),
  );
}

function summary(ride, known) {
  const said = [`Sketch with ${known.map((name) => NAMES[name]).join(", ")}.`];
  if (ride.requested_distance_m !== null) said.push(`From pick-up to destination ${f.metres(ride.requested_distance_m)}.`);
  if (ride.destination_gap_m !== null) said.push(`Drop-off ${f.metres(ride.destination_gap_m)} from the destination.`);
  return said.join(" ");
}

function marker(name, [x, y]) {
  const shapes = {
    pickup: svg("circle", { cx: x, cy: y, r: 8 }),
    destination: svg("path", { d: `M${x} ${y - 11} L${x + 11} ${y} L${x} ${y + 11} L${x - 11} ${y} Z` }),
    dropoff: svg("rect", { x: x - 7, y: y - 7, width: 14, height: 14 }),
  };
  return svg("g", { class: `marker ${name}` }, shapes[name]);
}

// Labels keep out of each other's way: of places that lie together, one is written above and the others below.
function labels(known, place, missed) {
  const taken = [];
  return known.map((name) => {
    const [x, y] = place[name];
    const anchor = x > W - 150 ? "end" : x < 150 ? "start" : "middle";
    const free = [-18, 28, 46, -36].find((shift) => !taken.some(([tx, ty]) => Math.abs(tx - x) < 130 && Math.abs(ty - (y + shift)) < 17)) ?? -18;
    taken.push([x, y + free]);
    const text = name === "dropoff" && missed ? "dropped off here" : NAMES[name];
    return svg("text", { x: x + (anchor === "start" ? -8 : anchor === "end" ? 8 : 0), y: y + free, "text-anchor": anchor, class: "label" }, text);
  });
}

const NICE = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000];

function grid(span) {
  const step = (NICE.find((n) => n / span >= 56) || NICE.at(-1)) / span;
  const lines = [];
  for (let x = (W / 2) % step; x < W; x += step) lines.push(svg("line", { x1: x, y1: 0, x2: x, y2: H }));
  for (let y = (H / 2) % step; y < H; y += step) lines.push(svg("line", { x1: 0, y1: y, x2: W, y2: y }));
  return svg("g", { class: "grid" }, lines);
}

function scale(span) {
  const length = NICE.find((n) => n / span >= 56) || NICE.at(-1);
  const width = length / span;
  return svg("g", { class: "scale", transform: `translate(16 ${H - 16})` }, svg("path", { d: `M0 -6 V0 H${width} V-6`, fill: "none" }), svg("text", { x: width / 2, y: -8, "text-anchor": "middle" }, f.metres(length)));
}
