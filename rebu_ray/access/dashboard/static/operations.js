// How the platform is: what comes in, how fresh it is, who serves it, and whether everything is accounted for.

import * as api from "./api.js";
import { rateChart } from "./chart.js";
import { behind, card, chip, empty, facts, h, later, table, tile, tiles, trouble } from "./dom.js";
import * as f from "./format.js";

const EVERY = 2000;
const KEPT = 150;

export function operations({ session, title }) {
  title("Operations");
  const seen = [[], []];
  const chart = rateChart("Records stored a second, as long as this page is open", seen, "records a second");
  const now = h("div", { class: "later" }, h("p", { class: "state waiting" }, "Loading …"));
  const where = h("div", {});
  watch(api.alive(), seen, chart, now, where);
  return [
    h("div", { class: "head" }, h("h1", {}, "Operations")),
    now,
    card("Throughput", chart, h("p", { class: "note" }, "Rows that reached the journal, over all shards, since this page was opened."), behind("The last minute as a table", () => lastMinute(seen))),
    where,
    card("Audit", audit()),
    card("Dead letters", session.scopes.includes("admin") ? deadLetters() : empty("Refused records are for the admin key", "They hold whole records of people. The command “rebu dashboard --admin” prints a link that shows them here.")),
  ];
}

function lastMinute([times, rates]) {
  const rows = times.slice(-30).map((at, index) => [at, rates.slice(-30)[index]]).reverse();
  return table("Records stored a second", [["Time", ([at]) => f.time(1000 * at)], ["Records a second", ([, rate]) => f.tenth(rate), "number"]], rows);
}

async function watch(signal, seen, chart, now, where) {
  let before = null;
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        const state = await api.get("/v1/status", {}, signal);
        const at = Date.now() / 1000;
        const rows = state.shards.reduce((sum, shard) => sum + (shard.rows || 0), 0);
        const rate = before && at > before.at && rows >= before.rows ? (rows - before.rows) / (at - before.at) : null;
        before = { at, rows };
        if (rate !== null) {
          seen[0].push(at);
          seen[1].push(rate);
          if (seen[0].length > KEPT) seen.forEach((column) => column.shift());
          chart.update(seen);
        }
        now.replaceChildren(health(state), glance(state, rows, rate));
        refresh(where, state);
      } catch (error) {
        if (signal.aborted) return;
        now.replaceChildren(trouble(error));
      }
    }
    await new Promise((done) => setTimeout(done, EVERY));
  }
}

function health(state) {
  const behindNow = state.shards.filter((shard) => shard.index !== "current");
  const away = (state.nodes || []).filter((node) => !node.alive);
  const problems = [
    ...behindNow.map((shard) => `shard ${shard.slot} is ${shard.index}${shard.detail ? `: ${shard.detail}` : ""}`),
    ...(state.redis.used_memory_bytes === null ? [`Redis does not answer: ${state.redis.detail}`] : []),
    ...(state.cluster ? [state.cluster.detail] : []),
    ...(state.replicas || []).filter((one) => !["HEALTHY", "UPSCALING", "DOWNSCALING"].includes(one.status)).map((one) => `${one.deployment} is ${one.status.toLowerCase()}${one.detail ? `: ${one.detail}` : ""}`),
    ...(state.appdb && !state.appdb.connected ? [`the application database is not reached: ${state.appdb.detail}`] : []),
    ...(state.suspended || []).map((one) => `${f.plural(one.senders, "sender")} of ${one.source} suspended until ${f.time(one.until)}: ${f.count(one.refused)} of ${f.count(one.records)} records were refused`),
    ...state.shards.filter((shard) => shard.uncomputed_subjects).map((shard) => `shard ${shard.slot} cannot compute the documents of ${f.plural(shard.uncomputed_subjects, "person", "people")}: its log says why`),
  ];
  if (!problems.length) return h("p", { class: "verdict good" }, h("strong", {}, "All is well. "), `${f.plural(state.shards.length, "shard")} serve ${f.plural(state.partitions, "partition")}${away.length ? `; ${f.plural(away.length, "node")} left earlier` : ""}.`);
  return h("div", { class: "verdict bad" }, h("strong", {}, "Look at this:"), h("ul", {}, problems.map((text) => h("li", {}, text))));
}

function glance(state, rows, rate) {
  const sum = (name) => state.shards.reduce((total, shard) => total + (shard[name] || 0), 0);
  const most = (name) => Math.max(0, ...state.shards.map((shard) => shard[name] || 0));
  const lag = state.appdb && state.appdb.lag_s;
  return tiles(
    tile("Stored a second", rate === null ? "…" : f.tenth(rate), `${f.count(rows)} in all`),
    tile("Waiting for the journal", f.bytes(sum("queued_bytes")), `the oldest for ${f.seconds(most("queue_age_s"))}`),
    tile("Not in the index yet", f.count(sum("unindexed_rows")), "rows"),
    tile("Rides not computed yet", f.count(sum("unprocessed_rows")), "rows of which they are made"),
    tile("On the way to the lake", f.bytes(sum("journal_bytes")), `the oldest for ${f.seconds(most("journal_age_s"))}`),
    tile("Database looked at", state.appdb ? (lag === null || lag === undefined ? f.NONE : `${f.seconds(lag)} ago`) : f.NONE, state.appdb ? `${Object.keys(state.appdb.tables).length} tables` : "none is pulled"),
    tile("Redis", f.bytes(state.redis.used_memory_bytes), `${f.count(sum("remembered_ids"))} ids remembered`),
    tile("Lines without a person", f.count(sum("unattributed_waiting")), `${f.count(sum("unattributed_expired"))} given up`),
  );
}

// Where somebody reads on in an opened table, it is not closed under them.
function refresh(where, state) {
  const key = JSON.stringify([state.shards, state.routing, state.nodes, state.replicas, state.appdb && state.appdb.tables, state.erasures]);
  if (where.dataset.key === key || where.contains(document.activeElement)) return;
  where.dataset.key = key;
  const open = [...where.querySelectorAll("details")].map((one) => one.open);
  where.replaceChildren(...[card("Shards and partitions", shards(state)), card("Replicas and nodes", replicas(state)), state.appdb && card("Application database", database(state.appdb))].filter(Boolean));
  [...where.querySelectorAll("details")].forEach((one, at) => (one.open = open[at] || false));
}

function shards(state) {
  const owners = (state.routing && state.routing.owners) || [];
  const strip = h(
    "ol",
    { class: "partitions", "aria-label": "Partitions and the shard that owns each" },
    owners.map((slot, partition) => h("li", { class: `slot-${slot % 6}`, title: `partition ${partition}: shard ${slot}` }, h("span", { class: "unseen" }, `partition ${partition}: shard `), slot)),
  );
  const moves = state.moves || { moved: 0, fenced: 0, pauses_ms: [] };
  const columns = [
    ["Shard", (s) => s.slot],
    ["Index", (s) => chip(s.index, s.index === "current" ? "good" : "bad", s.index === "current" ? "✓" : "▲")],
    ["Partitions", (s) => f.count((s.partitions || []).length), "number"],
    ["Rows", (s) => f.count(s.rows), "number"],
    ["Takes a second", (s) => f.bytes(s.load_bytes_s), "number"],
    ["Stored", (s) => f.count(s.stored), "number"],
    ["Duplicates", (s) => f.count(s.duplicate), "number"],
    ["Documents", (s) => f.count(s.documents), "number"],
    ["Journal", (s) => f.bytes(s.journal_bytes), "number"],
    ["Epoch", (s) => f.count(s.epoch), "number"],
    ["Process", (s) => s.pid ?? f.NONE, "number"],
  ];
  return [
    strip,
    h("p", { class: "note" }, `Each square is a partition, with the number of its shard. ${f.plural(moves.moved, "partition")} moved since the coordinator started, ${moves.fenced} taken from shards that were gone${state.scaling ? "; shards are being added or removed now" : ""}.`),
    table("Shards", columns, state.shards),
  ];
}

function replicas(state) {
  if (!state.replicas) return empty("Ray does not say", state.cluster ? state.cluster.detail : "Nodes and replicas are not known at the moment.");
  const total = (one) => Object.values(one.replicas).reduce((sum, n) => sum + n, 0);
  return [
    table(
      "Replicas",
      [
        ["Deployment", (one) => one.deployment],
        ["State", (one) => chip(f.words(one.status.toLowerCase()), one.status === "HEALTHY" ? "good" : "warn", one.status === "HEALTHY" ? "✓" : "…")],
        ["Replicas", (one) => f.count(total(one)), "number"],
        ["", (one) => Object.entries(one.replicas).map(([name, n]) => `${n} ${f.words(name.toLowerCase())}`).join(", ")],
      ],
      state.replicas,
    ),
    table(
      "Nodes",
      [
        ["Node", (one) => [h("span", { class: "id" }, one.node_id.slice(0, 10)), one.head ? " (head)" : ""]],
        ["Address", (one) => one.address],
        ["State", (one) => chip(one.alive ? "alive" : "gone", one.alive ? "good" : "plain", one.alive ? "✓" : "–")],
        ["CPUs told to Ray", (one) => f.tenth(one.cpus), "number"],
        ["Memory", (one) => f.bytes(one.memory_bytes), "number"],
      ],
      state.nodes.toSorted((a, b) => b.alive - a.alive),
    ),
  ];
}

function database(appdb) {
  const tables = Object.entries(appdb.tables);
  const fields = [...new Set(tables.flatMap(([, state]) => Object.keys(state).filter((name) => typeof state[name] !== "object")))];
  if (!tables.length) return h("p", { class: "note" }, appdb.detail || "No table was read yet.");
  return table("Tables that are pulled", [["Table", ([name]) => name], ...fields.map((field) => [f.words(field), ([, state]) => (typeof state[field] === "number" ? f.count(state[field]) : String(state[field] ?? f.NONE)), typeof tables[0][1][field] === "number" ? "number" : ""])], tables);
}

function audit() {
  const since = new Date(Date.now() - 86_400_000).toISOString();
  const place = h("div", {});
  const run = (params) => place.replaceChildren(later(() => accounts(params), { waiting: "Counting what is there …" }));
  const buttons = h(
    "p",
    {},
    h("button", { type: "button", onclick: () => run({ since }) }, "Count the last day again"),
    " ",
    h("button", { type: "button", onclick: () => run({}) }, "Count everything"),
  );
  run({ since });
  return [buttons, place];
}

async function accounts(params) {
  const found = await api.get("/v1/audit", params);
  const names = ["received", "stored", "duplicate", "dead_letter", "suppressed"];
  const by = new Map();
  for (const item of found.items) {
    const sums = by.get(item.source) || { source: item.source, balanced: true, ...Object.fromEntries(names.map((name) => [name, 0])) };
    for (const name of names) sums[name] += item[name];
    sums.balanced &&= item.balanced;
    by.set(item.source, sums);
  }
  const columns = (first) => [first, ...names.map((name) => [f.words(name), (row) => f.count(row[name]), "number"]), ["Balanced", (row) => chip(row.balanced ? "yes" : "no", row.balanced ? "good" : "bad", row.balanced ? "✓" : "▲")]];
  if (!found.items.length) return empty(params.since ? "Nothing of the last day" : "Nothing came in yet", "An account is opened for every ten minutes in which something happened.");
  return [
    h("p", { class: `verdict ${found.balanced ? "good" : "bad"}` }, h("strong", {}, found.balanced ? "It balances: " : "It does not balance: "), "received = stored + duplicate + dead letter + suppressed", params.since ? ", of what happened in the last day." : ", of everything there is."),
    found.problems.length > 0 && h("ul", { class: "problems" }, found.problems.map((text) => h("li", {}, text))),
    table("Accounts by source", columns(["Source", (row) => row.source]), [...by.values()]),
    behind(`By ten minutes (${f.count(found.items.length)})`, () => table("Accounts by source and ten minutes", [["From", (row) => f.moment(row.bucket)], ...columns(["Source", (row) => row.source])], found.items.slice(-500).reverse())),
  ];
}

function deadLetters() {
  return later(async () => {
    const found = await api.get("/v1/deadletters", { limit: 100 });
    if (!found.items.length) return empty("No dead letters", "Everything that came in could be read.");
    const reasons = new Map();
    for (const letter of found.items) reasons.set(letter.reason, (reasons.get(letter.reason) || 0) + 1);
    return [
      h("p", { class: "note" }, `The newest ${f.count(found.items.length)}${found.next ? "" : ", which are all"}. After a fix, “rebu deadletters replay” tries them again.`),
      h("ol", { class: "events" }, found.items.map((letter) =>
        h("li", {}, h("details", {}, h("summary", {}, h("span", { class: "when" }, f.moment(letter.received_at)), chip(letter.source, "plain"), h("strong", {}, letter.reason)), facts(["Id", letter.id]), h("pre", {}, typeof letter.record === "string" ? letter.record : JSON.stringify(letter.record, null, 2)))),
      )),
    ];
  });
}
