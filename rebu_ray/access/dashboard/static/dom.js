// Elements without markup in strings: what people wrote is always text, never code.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

export function say(text) {
  document.getElementById("said").textContent = text;
}

// A place that shows what a promise brings: waiting, the content, or why there is none and what helps.
export function later(work, { waiting = "Loading …" } = {}) {
  const place = h("div", { class: "later", "aria-busy": "true" }, h("p", { class: "state waiting" }, waiting));
  const run = async () => {
    try {
      const found = await work();
      place.replaceChildren(...[found].flat(Infinity).filter(Boolean));
    } catch (error) {
      if (error.name === "AbortError") return;
      place.replaceChildren(trouble(error, run));
      if (!error.status) console.warn(error);
    }
    place.removeAttribute("aria-busy");
  };
  place.run = run;
  run();
  return place;
}

export function trouble(error, again) {
  const [title, advice] = explain(error);
  return h(
    "div",
    { class: "state trouble", role: "alert" },
    h("h3", {}, title),
    h("p", {}, advice),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

function explain(error) {
  if (error.status === 404) return ["Nothing is known of that", sentence(error.message)];
  if (error.status === 403) return ["This session may not see that", `${sentence(error.message)} The command “rebu dashboard --admin” prints a link that may.`];
  if (error.status === 429) return ["Too many questions at once", sentence(error.message)];
  if (error.status === 503) return ["Not possible at the moment", sentence(error.message)];
  if (error.status) return [`The platform refused (${error.status})`, sentence(error.message)];
  return ["The platform does not answer", "Is it still running? Pages come back as soon as it does."];
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "");

export function empty(title, advice, ...more) {
  return h("div", { class: "state empty" }, h("h3", {}, title), advice && h("p", {}, advice), ...more);
}

export function tile(label, value, note) {
  return h(
    "div",
    { class: "tile" },
    h("dt", {}, label),
    h("dd", {}, h("span", { class: "value" }, value), note && h("span", { class: "note" }, note)),
  );
}

export const tiles = (...all) => h("dl", { class: "tiles" }, ...all);

export function card(title, ...children) {
  const id = `card-${(card.count = (card.count || 0) + 1)}`;
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

// columns: [label, row => cell, "number" for figures]
export function table(caption, columns, rows) {
  return h(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, columns.map(([label, , kind]) => h("th", { scope: "col", class: kind }, label)))),
      h(
        "tbody",
        {},
        rows.map((row) => h("tr", {}, columns.map(([, cell, kind], at) => h(at ? "td" : "th", { class: kind, scope: at ? null : "row" }, cell(row))))),
      ),
    ),
  );
}

export const behind = (label, content) => {
  const place = h("details", { class: "behind" }, h("summary", {}, label));
  place.addEventListener("toggle", () => place.open && place.children.length === 1 && place.append(...[content()].flat()));
  return place;
};

export function chip(text, kind, mark) {
  return h("span", { class: `chip ${kind || ""}` }, mark && h("span", { "aria-hidden": "true" }, mark), text);
}

export const facts = (...pairs) =>
  h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

export const link = (to, ...children) => h("a", { href: `#/${to}` }, ...children);
export const path = (...parts) => parts.map(encodeURIComponent).join("/");

// Calls back with the width of an element, now and whenever it changes, until the element is gone.
export function measured(element, draw) {
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0 && width !== last) draw((last = width));
  }).observe(element);
}
