// A message to customer service, and the ride that it is about: how sure that is, and why.

import * as api from "./api.js";
import { card, chip, facts, h, later, link, path } from "./dom.js";
import * as f from "./format.js";

const STATUS = { linked: ["linked", "good", "✓"], ambiguous: ["ambiguous", "warn", "?"], none: ["about no ride", "plain", "–"] };

export function confidence(value) {
  return h(
    "span",
    { class: "confidence" },
    h("meter", { min: 0, max: 1, value, "aria-label": `Confidence ${f.percent(value)}` }),
    h("span", {}, `${f.percent(value)} sure`),
  );
}

export function reasonList(reasons) {
  if (!reasons || !reasons.length) return h("p", { class: "note" }, "No single reason weighs anything.");
  const most = Math.max(...reasons.map((reason) => Math.abs(reason.weight)), 1);
  return h(
    "ul",
    { class: "reasons" },
    reasons.map((reason) =>
      h(
        "li",
        {},
        h("span", { class: "signal" }, f.words(reason.signal)),
        h("span", { class: "detail" }, reason.detail),
        h("span", { class: "weight", title: "Evidence: above 0 speaks for the link, below 0 against it" }, h("span", { class: reason.weight < 0 ? "bar against" : "bar", style: { width: `${Math.round((40 * Math.abs(reason.weight)) / most)}px` } }), `${reason.weight > 0 ? "+" : ""}${f.hundredth(reason.weight)}`),
      ),
    ),
  );
}

export function messageBlock(message, { rides = false } = {}) {
  const [text, kind, mark] = STATUS[message.link.status] || [message.link.status, "plain", ""];
  const long = (message.body || "").length > 600;
  const words = h("div", { class: "body" }, message.body || "");
  return h(
    "article",
    { class: "message", id: `message-${message.message_id}` },
    h(
      "header",
      {},
      h("strong", {}, message.subject || `${message.channel || "message"}, ${message.direction || "direction unknown"}`),
      h("span", { class: "note" }, [message.channel, message.direction, message.sent_at && f.moment(message.sent_at)].filter(Boolean).join(" · ")),
      h("span", { class: "chips" }, chip(text, kind, mark), confidence(message.link.confidence)),
    ),
    long ? h("details", {}, h("summary", {}, `${message.body.slice(0, 160).trim()} …`), words) : words,
    h("details", { class: "behind", open: !long && !rides }, h("summary", {}, "Why"), reasonList(message.link.reasons)),
    rides && message.link.ride_id && h("p", {}, "About the ride ", link(path("ride", message.link.ride_id), message.link.ride_id)),
    h("p", { class: "note" }, link(path("message", message.message_id), message.message_id)),
  );
}

export function message({ id, title }) {
  title(`Message ${id}`);
  return [
    h("h1", {}, "Message ", h("span", { class: "id" }, id)),
    later(async () => {
      const found = await api.get(api.message(id));
      return [
        card(
          "What was written",
          facts(["Person", found.user_id && link(path("user", found.user_id), found.user_id)], ["Thread", found.thread_id]),
          messageBlock(found, { rides: true }),
        ),
        card(
          "Rides that it may be about",
          (found.link.candidates || []).length
            ? h(
                "ol",
                { class: "candidates" },
                found.link.candidates.map((one) => h("li", {}, h("div", { class: "chips" }, link(path("ride", one.ride_id), one.ride_id), confidence(one.confidence)), reasonList(one.reasons))),
              )
            : h("p", { class: "note" }, "None of this person’s rides comes into question."),
        ),
        (found.link.history || []).length > 0 &&
          card("Links before", h("ul", {}, found.link.history.map((one) => h("li", {}, `from ${f.moment(one.since)} to ${f.moment(one.until)}: ${one.status}${one.ride_id ? `, ${one.ride_id}` : ""}, ${f.percent(one.confidence)}`)))),
      ];
    }),
  ];
}
