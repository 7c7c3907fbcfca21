// Rides per day of the past month, the forecast of the next, and how good the last forecasts were.

import * as api from "./api.js";
import { dayChart } from "./chart.js";
import { behind, card, empty, h, later, link, path, sentence, table, tile, tiles } from "./dom.js";
import * as f from "./format.js";
import { rideList, worstFirst } from "./rides.js";

const PAST = 31;
const AHEAD = 30;

export function overview({ asked, title }) {
  title("Overview");
  const today = f.isDate(asked.get("today")) ? asked.get("today") : f.dateOf(Date.now());
  const signal = api.alive();
  let looks = 0;
  const place = later(async () => {
    const [found, fitting] = await month(today);
    // A model is being fitted meanwhile: it is looked for again, for a while.
    if (fitting && looks++ < 20) setTimeout(() => !signal.aborted && !place.contains(document.activeElement) && place.run(), 5000);
    return found;
  });
  return [
    h("div", { class: "head" }, h("h1", {}, "Rides"), turns(today)),
    place,
    card("Went wrong lately", later(() => wrong(today))),
  ];
}

function turns(today) {
  const now = f.dateOf(Date.now());
  const to = (date) => (date >= now ? "" : `?today=${date}`);
  return h(
    "nav",
    { class: "turns", "aria-label": "Months" },
    link(to(f.plusDays(today, -PAST)), "← Earlier"),
    h("span", {}, `${PAST} days up to ${f.day(today)}`),
    today < now ? link(to(f.plusDays(today, PAST)), "Later →") : h("span", { class: "off" }, "Later →"),
  );
}

async function month(today) {
  const params = { tz: f.zone(), today };
  const [daily, forecast, newest] = await Promise.all([
    api.perhaps("/v1/stats/rides/daily", { ...params, days: PAST }),
    api.perhaps("/v1/stats/rides/forecast", { ...params, days: AHEAD }).catch((error) => {
      if (error.name === "AbortError") throw error;
      return { failed: error };
    }),
    api.get("/v1/rides", { limit: 1 }),
  ]);
  if (!newest.items.length) {
    return [empty("No rides yet", "They appear here as soon as the application database is pulled (rebu up --appdb …), or rows are sent to /v1/records/rides.", h("p", {}, h("a", { href: "/docs" }, "How to send")))];
  }
  if (!daily) return [empty("This platform serves no daily statistics", "Its version has no /v1/stats/rides/daily. The rides themselves are there: see below.")];
  const items = daily.items;
  const parts = [];
  if (!items.some((item) => item.rides)) {
    const last = f.dateOf(newest.items[0].requested_at);
    parts.push(empty(`No rides in the ${PAST} days up to ${f.day(today)}`, `The newest ride of all is of ${f.longDay(last)}.`, h("p", {}, link(`?today=${last}`, "Show that month"))));
  }
  parts.push(sums(items));
  const known = forecast && !forecast.failed && forecast.items ? forecast : null;
  const rows = days(items, known);
  const chart = dayChart(rows, { pick: (row) => (location.hash = `/${path("day", row.date)}`) });
  parts.push(
    card(
      "Rides per day",
      legend(rows),
      chart,
      model(forecast),
      behind("The numbers as a table", () => numbers(rows)),
    ),
  );
  const judged = rows.filter((row) => row.said !== undefined && row.rides !== undefined && !row.partial);
  if (judged.length) parts.push(card("Last forecasts against what came", judgement(judged)));
  return [parts, known && known.status === "fitting"];
}

// One row a day: what was counted, what is expected, and what had been expected of days that are over.
function days(items, forecast) {
  const rows = new Map(items.map((item) => [item.date, { ...item }]));
  for (const item of (forecast && forecast.items) || []) rows.set(item.date, { ...rows.get(item.date), ...item });
  for (const item of (forecast && forecast.past) || []) {
    const row = rows.get(item.date);
    if (row && row.mean === undefined) Object.assign(row, { said: item.mean, said_lo: item.lo80, said_hi: item.hi80, made: item.made });
  }
  return [...rows.values()].sort((a, b) => (a.date < b.date ? -1 : 1));
}

function sums(items) {
  const today = items.at(-1);
  const yesterday = items.at(-2);
  const open = today.partial && today.date === f.dateOf(Date.now());
  const sum = (some, name) => some.reduce((total, item) => total + item[name], 0);
  const over = items.filter((item) => !item.partial);
  const week = sum(over.slice(-7), "rides");
  const before = sum(over.slice(-14, -7), "rides");
  const all = sum(items, "rides");
  const change = before ? `${week >= before ? "+" : "−"}${f.percent(Math.abs(week / before - 1))} on the 7 before` : "nothing to compare with";
  return tiles(
    tile(open ? "Today, so far" : `On ${f.day(today.date)}`, f.count(today.rides), open ? "the day is not over" : `${f.count(today.completed)} completed`),
    tile("The day before", yesterday ? f.count(yesterday.rides) : f.NONE, yesterday && `${f.count(yesterday.completed)} completed`),
    tile("Last 7 whole days", f.count(week), change),
    tile(`Ended early, ${items.length} days`, f.count(sum(items, "premature")), all ? `${f.percent(sum(items, "premature") / all, 1)} of ${f.plural(all, "ride")}` : ""),
  );
}

function legend(rows) {
  const has = (name) => rows.some((row) => row[name] !== undefined);
  const entries = [
    ["bar", "rides"],
    rows.some((row) => row.partial) && ["bar partial", "today, not over"],
    ["bar early", "of these ended early"],
    has("mean") && ["line forecast", "forecast"],
    has("lo80") && ["band b80", "with 80 %"],
    has("lo95") && ["band b95", "with 95 %"],
    has("said") && ["line said", "what had been forecast"],
  ];
  return h("ul", { class: "legend", "aria-label": "What the colours mean" }, entries.filter(Boolean).map(([kind, text]) => h("li", {}, h("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text)));
}

// The model and its backtest in one honest line.
function model(forecast) {
  if (!forecast) return h("p", { class: "note" }, "This platform serves no forecast: its version has no /v1/stats/rides/forecast.");
  if (forecast.failed) return h("p", { class: "note", role: "alert" }, `There is no forecast at the moment: ${forecast.failed.message}.`);
  const test = forecast.backtest || {};
  const said = [h("strong", {}, MODELS[forecast.model] || forecast.model), forecast.trained_from ? `, learned from ${f.date(forecast.trained_from)} to ${f.date(forecast.trained_to)}. ` : ". "];
  if (test.mase !== null && test.mase !== undefined) {
    const plain = test.mase_weekday_mean;
    const gain = plain ? 1 - test.mase / plain : null;
    const than = gain === null ? "" : Math.abs(gain) < 0.005 ? ", as good as the plain mean of the same weekdays" : `, ${f.percent(Math.abs(gain))} ${gain > 0 ? "better" : "worse"} than the plain mean of the same weekdays (${f.hundredth(plain)})`;
    said.push(`Tried on ${f.plural(test.windows, "stretch", "stretches")} of ${f.plural(test.horizon, "day")} that it had not seen, it was off by ${f.hundredth(test.mase)} times what “same as last week” is${than}. `);
    if (test.coverage80 !== null && test.coverage80 !== undefined) said.push(`Its 80 % band held ${f.percent(test.coverage80)} of the days, its 95 % band ${f.percent(test.coverage95)}.`);
  } else said.push(sentence(forecast.note || "there is too little history to test it: take it as a first guess"));
  if (test.mase !== null && test.mase !== undefined && forecast.note) said.push(` ${forecast.note}.`);
  if (forecast.status === "fitting") said.push(" A better one is being fitted now, and comes by itself.");
  if (forecast.status === "stale") said.push(" Rides of that time have changed since: it is being fitted anew.");
  return h("p", { class: "model" }, "Forecast by ", said);
}
const MODELS = { weekday_mean: "the mean of the last four same weekdays", seasonal_naive: "the same weekday a week before", ets: "exponential smoothing", theta: "the theta method", autoregression: "a regression on the days before", regression: "a regression on trend, weekday and holidays", ensemble: "the mean of several models" };

function numbers(rows) {
  const of = (name) => (row) => f.count(row[name]);
  const columns = [
    ["Day", (row) => (row.rides === undefined ? f.day(row.date) : link(path("day", row.date), f.day(row.date), row.partial ? " (not over)" : ""))],
    ["Rides", of("rides"), "number"],
    ["Completed", of("completed"), "number"],
    ["Ended early", of("premature"), "number"],
    ["Forecast", (row) => f.count(row.mean ?? row.said), "number"],
    ["80 % from", (row) => f.count(row.lo80 ?? row.said_lo), "number"],
    ["to", (row) => f.count(row.hi80 ?? row.said_hi), "number"],
    ["95 % from", of("lo95"), "number"],
    ["to", of("hi95"), "number"],
  ];
  return table("Rides per day and the forecast", columns, rows);
}

function judgement(rows) {
  const off = rows.map((row) => Math.abs(row.rides - row.said));
  const held = rows.filter((row) => row.said_lo !== undefined && row.said_lo <= row.rides && row.rides <= row.said_hi).length;
  const mean = off.reduce((sum, value) => sum + value, 0) / off.length;
  const columns = [
    ["Day", (row) => link(path("day", row.date), f.day(row.date))],
    ["Came", (row) => f.count(row.rides), "number"],
    ["Forecast", (row) => f.count(row.said), "number"],
    ["Off by", (row) => `${row.rides >= row.said ? "+" : "−"}${f.count(Math.abs(row.rides - row.said))}`, "number"],
    ["Forecast of", (row) => (row.made ? f.day(row.made) : f.NONE)],
    ["Within 80 %", (row) => (row.said_lo === undefined ? f.NONE : row.said_lo <= row.rides && row.rides <= row.said_hi ? "✓ yes" : "✕ no")],
  ];
  return [
    h("p", {}, `Over ${f.plural(rows.length, "day")} the forecast was off by ${f.tenth(mean)} rides on average, and its 80 % band held ${held} of them.`),
    behind("Day by day", () => table("Forecasts and what came", columns, rows.toReversed())),
  ];
}

async function wrong(today) {
  const until = new Date(f.dayStart(f.plusDays(today, 1))).toISOString();
  const since = new Date(f.dayStart(f.plusDays(today, 1 - PAST))).toISOString();
  const found = await api.list("/v1/rides", { since, until, premature: true }, 200);
  if (!found.items.length) return empty("Nothing ended early", `In the ${PAST} days up to ${f.day(today)} every ride that was driven reached its destination.`);
  return [h("p", { class: "note" }, found.next ? `The worst of the newest ${f.count(found.items.length)} that ended early.` : `${f.plural(found.items.length, "ride")} ended early.`), rideList(worstFirst(found.items).slice(0, 8), { date: true, label: "Rides that ended early" })];
}
