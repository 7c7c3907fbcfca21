// A ride: what is known of it, where it went, what happened meanwhile, and what was written about it.

import * as api from "./api.js";
import { behind, card, chip, empty, facts, h, later, link, path, table } from "./dom.js";
import * as f from "./format.js";
import { mapSketch } from "./map.js";
import { messageBlock } from "./message.js";
import { person, reasons, statusChips } from "./rides.js";
import { timeline } from "./timeline.js";

const CAUSES = {
  driver: "the driver cancelled it",
  rider: "the rider cancelled it",
  app: "an error happened while it was driven",
  unknown: "why is not known",
};

export function ride({ id, title }) {
  title(`Ride ${id}`);
  return later(async () => {
    const found = await api.get(api.ride(id));
    const date = found.requested_at && f.dateOf(found.requested_at);
    const messages = once(() => api.get(`${api.ride(found.ride_id)}/messages`));
    return [
      h(
        "div",
        { class: "head" },
        h("div", {}, h("h1", {}, "Ride ", h("span", { class: "id" }, found.ride_id)), h("p", { class: "chips" }, statusChips(found), found.city && chip(found.city, "plain"))),
        date && h("nav", { class: "turns", "aria-label": "Up" }, link(path("day", date), `All of ${f.day(date)}`)),
      ),
      verdict(found),
      h("div", { class: "two" }, card("What is known", known(found)), card("Where it went", mapSketch(found))),
      card("What happened", later(() => happened(found, messages))),
      card("What was written about it", later(() => written(messages))),
    ];
  });
}

function verdict(ride) {
  if (ride.premature) {
    const part = ride.progress === null ? "" : `, with ${f.percent(ride.progress)} of the way done`;
    return h("p", { class: "verdict bad" }, h("strong", {}, "It ended too early: "), `${f.metres(ride.destination_gap_m)} from the destination${part}; ${CAUSES[ride.cause] || CAUSES.unknown}.`);
  }
  const said = reasons(ride);
  return said.length ? h("p", { class: "verdict warn" }, said.join(" · ")) : h("p", { class: "verdict good" }, "Nothing wrong is known of it.");
}

function known(ride) {
  const matched = ride.destination_matched === null ? null : ride.destination_matched ? "reached" : "not reached";
  return [
    facts(
      ["Rider", person(ride.user)],
      ["Driver", person(ride.driver, "driver_id")],
      ["Requested", f.moment(ride.requested_at)],
      ["Accepted", ride.accepted_at && f.moment(ride.accepted_at)],
      ["Picked up", ride.picked_up_at && f.moment(ride.picked_up_at)],
      ["Ended", ride.ended_at && f.moment(ride.ended_at)],
      ["Waited", ride.wait_s !== null && f.seconds(ride.wait_s)],
      ["Drove", ride.duration_s !== null && f.seconds(ride.duration_s)],
      ["Fare", ride.fare_cents !== null && f.money(ride.fare_cents, ride.currency)],
      ["Distance driven", ride.distance_m !== null && f.metres(ride.distance_m)],
      ["Asked for", ride.requested_distance_m !== null && `${f.metres(ride.requested_distance_m)} as the crow flies`],
      ["Destination", matched && `${matched}, ${f.metres(ride.destination_gap_m)} away at the end`],
      ["Progress", ride.progress !== null && f.percent(ride.progress, 1)],
      ["Rating", ride.rating !== null && ride.rating !== undefined && f.tenth(ride.rating)],
      ["Errors", `${f.count(ride.errors.app)} of the app, ${f.count(ride.errors.server)} of the server`],
      ["Quality", `${f.hundredth(ride.quality)}${ride.flags.length ? `: ${ride.flags.map(f.words).join(", ")}` : ", no doubts"}`],
      ["Computed", ride.computed_at && `${f.moment(ride.computed_at)}, version ${ride.version}`],
    ),
  ];
}

const BEFORE = 120_000;
const AFTER = 600_000;

// What two places show is asked for once; what failed is asked for again when one of them tries again.
function once(ask) {
  let asked = null;
  return () =>
    (asked ??= ask().catch((error) => {
      asked = null;
      throw error;
    }));
}

async function happened(ride, messages) {
  const begin = Date.parse(ride.requested_at);
  if (Number.isNaN(begin)) return empty("It is not known when", "The ride has no time of request, so nothing can be put beside it.");
  const end = Date.parse(ride.ended_at) || Math.min(Date.now(), begin + 6 * 3_600_000);
  const span = { since: new Date(begin - BEFORE).toISOString(), until: new Date(end + AFTER).toISOString(), order: "asc" };
  const [history, about] = await Promise.all([
    ride.user ? api.list(`${api.user(ride.user.user_id)}/events`, span, 2000) : { items: [], next: null },
    messages(),
  ]);
  const inRide = new Set(ride.errors.items.map((item) => item.id));
  const entries = [
    ...["requested_at", "accepted_at", "picked_up_at", "ended_at"].filter((name) => ride[name]).map((name) => ({ at: Date.parse(ride[name]), lane: "ride", name: { requested_at: "requested", accepted_at: "accepted", picked_up_at: "picked up", ended_at: `ended, ${f.status(ride.status)}` }[name] })),
    ...history.items.map((item) => ({ at: Date.parse(item.timestamp), lane: item.kind, name: item.name, bad: inRide.has(item.id), status: item.body && item.body.status, item })),
    ...about.items.filter((item) => item.sent_at).map((item) => ({ at: Date.parse(item.sent_at), lane: "message", name: `${item.channel} ${item.direction}: ${item.subject || (item.body || "").slice(0, 60)}`, link: item.link, message_id: item.message_id })),
  ].sort((a, b) => a.at - b.at);
  const columns = [
    ["Time", (e) => f.moment(e.at)],
    ["Kind", (e) => f.words(e.lane)],
    ["What", (e) => [e.bad && chip("error in the ride", "bad", "▲"), " ", e.link ? link(path("message", e.message_id), e.name) : e.name, e.status ? ` (${e.status})` : ""].filter(Boolean)],
    ["Attached by", (e) => (e.item ? f.words(e.item.matched_by) : e.link ? `${f.words(e.link.status)}, ${f.percent(e.link.confidence)}` : f.NONE)],
  ];
  return [
    timeline(entries, { begin, end: Date.parse(ride.ended_at) || null, pickedUp: Date.parse(ride.picked_up_at) || null }),
    history.next && h("p", { class: "note" }, "There is more than is drawn here: the person’s page has everything."),
    behind(`All ${f.plural(entries.length, "entry", "entries")} as a table`, () => table("What happened during the ride", columns, entries)),
  ];
}

async function written(messages) {
  const found = await messages();
  if (!found.items.length) return empty("Nobody wrote about it", "Mails, calls and chats appear here as soon as they are matched, each with how sure that is.");
  return found.items.map((message) => messageBlock(message));
}
