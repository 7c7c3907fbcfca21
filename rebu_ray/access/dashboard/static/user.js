// A person: who they are, everything that happened to them, live, their rides and what they wrote.

import * as api from "./api.js";
import { card, chip, empty, facts, h, later, link, path, say } from "./dom.js";
import * as f from "./format.js";
import { messageBlock } from "./message.js";
import { rideList } from "./rides.js";

const KINDS = { app_event: ["app", "plain", "●"], app_error: ["app error", "bad", "▲"], server_access: ["request", "plain", "○"], server_error: ["server error", "bad", "▲"] };
const PAGE = 100;

export function user({ id, title }) {
  title(`Person ${id}`);
  return [
    later(async () => head(await api.get(api.user(id)))),
    tabs([
      ["Everything that happened", () => history(id)],
      ["Rides", () => later(() => things(id, "rides"))],
      ["Messages", () => later(() => things(id, "messages"))],
    ]),
  ];
}

function head(profile) {
  const account = profile.account || {};
  const traits = Object.entries(profile.traits || {}).map(([name, value]) => [f.words(name), typeof value === "object" ? JSON.stringify(value) : String(value)]);
  const ids = profile.anonymous_ids || [];
  return [
    h("div", { class: "head" }, h("h1", {}, account.name || profile.user_id, " ", account.name && h("span", { class: "id" }, profile.user_id))),
    h(
      "div",
      { class: "two" },
      card("Who", facts(["Id", profile.user_id], ["Mail", account.email], ["Phone", account.phone], ["Since", account.created_at && f.moment(account.created_at)], ["Identified", profile.identified_at && f.moment(profile.identified_at)], ...traits)),
      card(
        "Their phones",
        ids.length
          ? h("ul", { class: "plain" }, ids.map((one) => h("li", {}, h("span", { class: "id" }, one.anonymous_id), ` since ${f.moment(one.since)}`)))
          : h("p", { class: "note" }, "No anonymous id was ever identified as this person."),
      ),
    ),
  ];
}

function tabs(all) {
  const panel = h("div", { class: "panel", role: "tabpanel", id: "panel", tabindex: "0" });
  const buttons = all.map(([name], at) => h("button", { type: "button", role: "tab", id: `tab-${at}`, "aria-controls": "panel", onclick: () => open(at) }, name));
  const open = (at) => {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === at));
      button.tabIndex = index === at ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${at}`);
    panel.replaceChildren(all[at][1]());
  };
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "What to see of this person" }, buttons);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const at = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    open(at);
    buttons[at].focus();
  });
  open(0);
  return h("section", { class: "card" }, list, panel);
}

async function things(id, name) {
  const found = await api.list(`${api.user(id)}/${name}`, {}, 500);
  if (!found.items.length) return empty(name === "rides" ? "No rides" : "No messages", name === "rides" ? "This person has not asked for a ride yet." : "This person has not written, called or been written to.");
  const more = found.next && h("p", { class: "note" }, `The newest ${f.count(found.items.length)}.`);
  return [more, name === "rides" ? rideList(found.items, { date: true }) : found.items.map((one) => messageBlock(one, { rides: true }))].flat();
}

function history(id) {
  const place = h("div", {});
  const filters = h(
    "form",
    { class: "filters", onsubmit: (event) => (event.preventDefault(), load()), onchange: () => load() },
    choice("kind", "Kind", [["", "all"], ...Object.entries(KINDS).map(([value, [text]]) => [value, `${text}s`])]),
    h("label", {}, "Name", h("input", { name: "name", autocomplete: "off", placeholder: "exactly" })),
    h("label", {}, "From", h("input", { name: "since", type: "datetime-local" })),
    h("label", {}, "Until", h("input", { name: "until", type: "datetime-local" })),
    choice("order", "Order", [["desc", "newest first"], ["asc", "oldest first"]]),
    h("label", { class: "switch" }, h("input", { type: "checkbox", name: "live" }), " Live"),
  );
  const load = () => {
    const values = Object.fromEntries(new FormData(filters));
    const live = values.live === "on";
    delete values.live;
    for (const name of ["since", "until"]) if (values[name]) values[name] = instant(values[name]);
    follow.stop();
    const found = later(() => events(id, values));
    place.replaceChildren(...[live && follow.start(id, values), found].filter(Boolean));
  };
  load();
  return h("div", {}, filters, place);
}

const choice = (name, label, options) => h("label", {}, label, h("select", { name }, options.map(([value, text]) => h("option", { value }, text))));

// What a field says is meant in the time zone in which times are shown.
function instant(text) {
  const [date, clock] = text.split("T");
  const [hours, minutes] = clock.split(":").map(Number);
  return new Date(f.dayStart(date) + 3_600_000 * hours + 60_000 * minutes).toISOString();
}

async function events(id, values) {
  const found = await api.get(`${api.user(id)}/events`, { ...values, limit: PAGE });
  if (!found.items.length) return empty("Nothing here", "With other filters there may be something. What comes in from now on appears with “Live”.");
  const items = h("ol", { class: "events" }, found.items.map(event));
  const more = h("button", { type: "button" }, "Show more");
  let next = found.next;
  more.hidden = !next;
  more.onclick = async () => {
    more.disabled = true;
    try {
      const page = await api.get(`${api.user(id)}/events`, { ...values, limit: PAGE, cursor: next });
      items.append(...page.items.map(event));
      next = page.next;
      more.hidden = !next;
      say(`${f.count(items.children.length)} entries`);
    } catch (error) {
      if (error.name !== "AbortError") more.textContent = `That did not work (${error.message}): try again`;
    }
    more.disabled = false;
  };
  return [items, more];
}

function event(item) {
  const [text, kind, mark] = KINDS[item.kind] || [f.words(item.kind), "plain", ""];
  const status = item.body && item.body.status;
  const body = h("details", {}, h("summary", {}, h("span", { class: "when" }, f.moment(item.timestamp)), chip(text, kind, mark), h("strong", {}, item.name), status ? h("span", { class: status >= 500 ? "status bad" : "status" }, status) : null, h("span", { class: "note" }, `by ${f.words(item.matched_by)}`)));
  body.addEventListener("toggle", () => {
    if (!body.open || body.children.length > 1) return;
    body.append(facts(["Id", item.id], ["Source", item.source], ["Received", f.moment(item.received_at)], ["Anonymous id", item.anonymous_id]), h("pre", {}, JSON.stringify(item.body, null, 2)));
  });
  return h("li", { class: kind === "bad" ? "bad" : "" }, body);
}

// New records as they become visible. The stream knows no filters, so they are applied here.
const follow = {
  source: null,
  stop() {
    if (this.source) this.source.close();
    this.source = null;
  },
  start(id, values) {
    const items = h("ol", { class: "events live", "aria-label": "New entries" });
    const state = h("p", { class: "note", role: "status" }, "Connecting …");
    const source = new EventSource(`${api.user(id)}/events/stream`);
    this.source = source;
    api.alive().addEventListener("abort", () => source.close(), { once: true });
    source.onopen = () => (state.textContent = "Live: what comes in appears here.");
    source.onerror = () => (state.textContent = source.readyState === EventSource.CLOSED ? "The stream has ended: switch “Live” off and on again." : "The connection broke: trying again …");
    source.onmessage = ({ data }) => {
      const item = JSON.parse(data);
      if ((values.kind && item.kind !== values.kind) || (values.name && item.name !== values.name)) return;
      items.prepend(event(item));
      while (items.children.length > 500) items.lastChild.remove();
      state.textContent = `Live: ${f.plural(items.children.length, "new entry", "new entries")}.`;
    };
    return h("div", { class: "livebox" }, state, items);
  },
};
