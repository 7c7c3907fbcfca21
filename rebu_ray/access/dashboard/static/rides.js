// Rides in a list, the worst first, each with the reasons that put it there.

import { chip, empty, h, link, path } from "./dom.js";
import * as f from "./format.js";

export const faults = (ride) => ride.errors.app + ride.errors.server;
const letters = (ride) => ride.messages.linked + ride.messages.ambiguous;

// Those that ended too early, then those with the most errors, then those that somebody wrote about, then the doubtful.
export function worstFirst(rides) {
  const badness = (ride) => [ride.premature ? 0 : 1, -faults(ride), -letters(ride), ride.status === "failed" ? 0 : 1, ride.quality ?? 1];
  return rides
    .map((ride) => [badness(ride), ride])
    .sort(([a, x], [b, y]) => {
      const at = a.findIndex((value, index) => value !== b[index]);
      return at < 0 ? (x.requested_at < y.requested_at ? 1 : -1) : a[at] - b[at];
    })
    .map(([, ride]) => ride);
}

export function reasons(ride) {
  const said = [];
  if (ride.premature) {
    const part = ride.progress === null ? "" : `, ${f.percent(ride.progress)} of the way done`;
    said.push(`ended ${f.metres(ride.destination_gap_m)} from the destination${part}; cause: ${ride.cause || "unknown"}`);
  }
  if (ride.errors.app) said.push(f.plural(ride.errors.app, "app error"));
  if (ride.errors.server) said.push(f.plural(ride.errors.server, "server error"));
  if (ride.messages.linked) said.push(f.plural(ride.messages.linked, "message"));
  if (ride.messages.ambiguous) said.push(`${f.count(ride.messages.ambiguous)} perhaps about it`);
  if (ride.flags.length) said.push(`doubts: ${ride.flags.map(f.words).join(", ")}`);
  return said;
}

export function statusChips(ride) {
  const kind = { completed: "good", failed: "bad", cancelled_by_driver: "warn", cancelled_by_rider: "warn" }[ride.status] || "plain";
  const mark = { good: "✓", bad: "✕", warn: "⊘", plain: "…" }[kind];
  return [chip(f.status(ride.status), kind, mark), ride.premature && chip("ended early", "bad", "▲")];
}

export function rideList(rides, { date = false, label = "Rides" } = {}) {
  if (!rides.length) return empty("No rides here", "With other filters, or on another day, there may be some.");
  const items = h("ul", { class: "rides", "aria-label": label });
  let shown = 0;
  const more = h("button", { type: "button", onclick: () => grow() }, "Show more");
  const grow = () => {
    for (const ride of rides.slice(shown, (shown += 50))) items.append(h("li", {}, row(ride, date)));
    more.hidden = shown >= rides.length;
    more.textContent = `Show more (${f.count(rides.length - shown)} left)`;
  };
  grow();
  return h("div", {}, items, more);
}

function row(ride, date) {
  const who = ride.user && (ride.user.name || ride.user.user_id);
  const said = reasons(ride);
  return h(
    "a",
    { class: "ride", href: `#/${path("ride", ride.ride_id)}` },
    h("span", { class: "when" }, date ? f.moment(ride.requested_at) : f.time(ride.requested_at)),
    h("span", { class: "what" }, h("strong", {}, who || "nobody"), " ", h("span", { class: "id" }, ride.ride_id), ride.city && h("span", { class: "city" }, ` ${ride.city}`)),
    h("span", { class: "chips" }, statusChips(ride)),
    h("span", { class: "why" }, said.length ? said.join(" · ") : "nothing wrong is known"),
  );
}

export const person = (who, key = "user_id") => (who ? (key === "user_id" ? link(path("user", who[key]), who.name || who[key]) : who.name || who[key]) : f.NONE);
