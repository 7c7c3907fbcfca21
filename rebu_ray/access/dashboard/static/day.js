// A day: its rides, the worst first, with the reasons.

import * as api from "./api.js";
import { behind, card, empty, h, later, link, path, table, tile, tiles } from "./dom.js";
import * as f from "./format.js";
import { faults, person, rideList, worstFirst } from "./rides.js";

const MOST = 5000;

export function day({ id: date, title }) {
  if (!f.isDate(date)) {
    title("No such day");
    return empty("That is no day", "Days look like 2026-03-01.", h("p", {}, link("", "Go to the overview")));
  }
  title(f.longDay(date));
  return [
    h(
      "div",
      { class: "head" },
      h("h1", {}, f.longDay(date)),
      h("nav", { class: "turns", "aria-label": "Days" }, link(path("day", f.plusDays(date, -1)), "← Day before"), h("span", {}, f.zone().replaceAll("_", " ")), link(path("day", f.plusDays(date, 1)), "Day after →")),
    ),
    later(() => rides(date)),
  ];
}

async function rides(date) {
  const span = { since: new Date(f.dayStart(date)).toISOString(), until: new Date(f.dayStart(f.plusDays(date, 1))).toISOString() };
  const [early, faulty, all] = await Promise.all([
    api.list("/v1/rides", { ...span, premature: true }, MOST),
    api.list("/v1/rides", { ...span, min_errors: 1 }, MOST),
    api.list("/v1/rides", span, MOST),
  ]);
  const found = [...new Map([...early.items, ...faulty.items, ...all.items].map((ride) => [ride.ride_id, ride])).values()];
  if (!found.length) return empty("No rides on this day", "The day before or the day after may have some; so may another time zone.");
  const total = (test) => found.filter(test).length;
  const sum = found.length === all.items.length && !all.next ? "" : ` of the newest ${f.count(all.items.length)}`;
  const worst = worstFirst(found);
  const place = h("div", {});
  const filters = choose(worst, (some) => place.replaceChildren(rideList(some, { label: "Rides, the worst first" })));
  return [
    all.next && h("p", { class: "state note" }, `This day has more rides than are shown: all that ended early or met errors, and the newest ${f.count(MOST)}.`),
    tiles(
      tile("Rides", all.next ? `over ${f.count(MOST)}` : f.count(found.length), `${f.count(total((r) => r.status === "completed"))} completed${sum}`),
      tile("Ended early", f.count(total((r) => r.premature)), f.percent(total((r) => r.premature) / found.length, 1)),
      tile("Met errors", f.count(total((r) => faults(r) > 0)), `${f.count(found.reduce((n, r) => n + faults(r), 0))} errors`),
      tile("Written about", f.count(total((r) => r.messages.linked > 0)), `${f.count(total((r) => r.messages.ambiguous > 0))} perhaps`),
    ),
    card("By hour", hours(found)),
    card("Rides, the worst first", filters, place, behind("The same as a table", () => asTable(worst))),
  ];
}

function choose(rides, show) {
  const values = { status: "all", city: "all", cause: "all", only: "all" };
  const apply = () =>
    show(
      rides.filter(
        (ride) =>
          (values.status === "all" || ride.status === values.status) &&
          (values.city === "all" || ride.city === values.city) &&
          (values.cause === "all" || ride.cause === values.cause) &&
          (values.only === "all" || (values.only === "early" ? ride.premature : values.only === "errors" ? faults(ride) > 0 : ride.messages.linked + ride.messages.ambiguous > 0)),
      ),
    );
  const select = (name, label, options) =>
    h(
      "label",
      {},
      label,
      h("select", { name, "aria-label": label, onchange: (event) => ((values[name] = event.target.value), apply()) }, [["all", "all"], ...options].map(([value, text]) => h("option", { value }, text))),
    );
  const distinct = (get) => [...new Set(rides.map(get).filter(Boolean))].sort().map((value) => [value, value]);
  apply();
  return h(
    "div",
    { class: "filters" },
    select("only", "Show", [["early", "ended early"], ["errors", "met errors"], ["messages", "written about"]]),
    select("status", "Status", distinct((r) => r.status).map(([v]) => [v, f.status(v)])),
    select("cause", "Cause", distinct((r) => r.cause)),
    select("city", "City", distinct((r) => r.city)),
  );
}

// By the hour of the reader's clock: bars that need no drawing library.
function hours(rides) {
  const by = Array.from({ length: 24 }, () => [0, 0]);
  for (const ride of rides) {
    const at = by[Number(f.clock(ride.requested_at).slice(0, 2))];
    at[0] += 1;
    at[1] += ride.premature ? 1 : 0;
  }
  const most = Math.max(...by.map(([n]) => n), 1);
  return [
    h(
      "div",
      { class: "hours", "aria-hidden": "true" },
      by.map(([n, early], hour) => h("div", { class: "hour", title: `${hour}:00: ${f.plural(n, "ride")}, ${early} ended early` }, h("span", { class: "stack" }, h("span", { class: "bar", style: { height: `${(100 * (n - early)) / most}%` } }), h("span", { class: "bar early", style: { height: `${(100 * early) / most}%` } })), h("span", { class: "tick" }, hour % 3 ? "" : String(hour).padStart(2, "0")))),
    ),
    behind("The hours as a table", () => table("Rides by hour", [["Hour", ([, , hour]) => `${String(hour).padStart(2, "0")}:00`], ["Rides", ([n]) => f.count(n), "number"], ["Ended early", ([, early]) => f.count(early), "number"]], by.map(([n, early], hour) => [n, early, hour]))),
  ];
}

function asTable(rides) {
  const columns = [
    ["Ride", (r) => link(path("ride", r.ride_id), r.ride_id)],
    ["Requested", (r) => f.time(r.requested_at)],
    ["Person", (r) => person(r.user)],
    ["City", (r) => r.city || f.NONE],
    ["Status", (r) => f.status(r.status)],
    ["Ended early", (r) => (r.premature ? r.cause || "yes" : "no")],
    ["Progress", (r) => f.percent(r.progress), "number"],
    ["App errors", (r) => f.count(r.errors.app), "number"],
    ["Server errors", (r) => f.count(r.errors.server), "number"],
    ["Messages", (r) => f.count(r.messages.linked), "number"],
    ["Quality", (r) => f.hundredth(r.quality), "number"],
  ];
  const shown = rides.slice(0, 500);
  return [table("Rides, the worst first", columns, shown), shown.length < rides.length && h("p", { class: "note" }, `The first ${f.count(shown.length)} of ${f.count(rides.length)}.`)].filter(Boolean);
}
