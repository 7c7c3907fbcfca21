// The frame around every page: who is signed in, where one is, and what is looked for.

import * as api from "./api.js";
import { h, later, link, path, say, trouble } from "./dom.js";
import * as f from "./format.js";
import { day } from "./day.js";
import { find } from "./find.js";
import { message } from "./message.js";
import { operations } from "./operations.js";
import { overview } from "./overview.js";
import { ride } from "./ride.js";
import { signIn } from "./signin.js";
import { user } from "./user.js";

const PAGES = { "": overview, day, find, message, operations, ride, user };
const top = document.getElementById("top");
const main = document.getElementById("main");
let session = null;

function theme(name) {
  document.documentElement.dataset.theme = name;
  document.dispatchEvent(new Event("theme"));
}

function header(page) {
  const search = h(
    "form",
    {
      role: "search",
      class: "search",
      onsubmit: (event) => {
        event.preventDefault();
        const wanted = field.value.trim();
        if (wanted) location.hash = `/${path("find", wanted)}`;
      },
    },
    h("label", { class: "unseen", for: "find" }, "Find a ride, a person or a message by its id"),
  );
  const field = h("input", { id: "find", type: "search", placeholder: "Ride, person or message id", autocomplete: "off", spellcheck: "false" });
  search.append(field, h("button", { type: "submit" }, "Find"));
  const zones = [...new Set(["UTC", f.local, f.zone()])];
  const pick = (label, id, options, value, change) =>
    h(
      "label",
      { class: "pick" },
      h("span", { class: "unseen" }, label),
      h("select", { id, onchange: (event) => change(event.target.value) }, options.map(([v, text]) => h("option", { value: v, selected: v === value }, text))),
    );
  const tab = (to, text) => h("a", { href: `#/${to}`, "aria-current": page === to ? "page" : null }, text);
  top.replaceChildren(
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/dashboard/icon.svg", alt: "", width: 28, height: 28 }), "Rebu"),
    h("nav", { "aria-label": "Pages" }, tab("", "Overview"), tab("operations", "Operations"), h("a", { href: "/docs" }, "Interface")),
    search,
    h(
      "div",
      { class: "choices" },
      pick("Time zone", "zone", zones.map((z) => [z, z.replaceAll("_", " ")]), f.zone(), (name) => {
        f.setZone(name);
        show();
      }),
      pick("Colours", "theme", [["auto", "System"], ["light", "Light"], ["dark", "Dark"]], f.theme(), (name) => {
        f.keep("rebu-theme", name);
        theme(name);
      }),
      h("button", { type: "button", class: "quiet", onclick: signOut }, "Sign out"),
    ),
  );
}

async function signOut() {
  await api.send("DELETE", "/v1/session").catch((error) => console.warn(error.message));
  signedOut();
}

function signedOut() {
  session = null;
  api.turn();
  top.replaceChildren(h("span", { class: "brand" }, h("img", { src: "/dashboard/icon.svg", alt: "", width: 28, height: 28 }), "Rebu"));
  main.replaceChildren(signIn(begin));
  title("Sign in");
}

function title(text) {
  document.title = text ? `${text} · Rebu` : "Rebu";
}

function show() {
  if (!session) return;
  const [, page = "", ...rest] = location.hash.split("?")[0].split("/");
  const asked = new URLSearchParams(location.hash.split("?")[1] || "");
  let parts;
  try {
    parts = rest.map(decodeURIComponent);
  } catch {
    parts = [];
  }
  api.turn();
  header(page);
  const make = Object.hasOwn(PAGES, page) ? PAGES[page] : null;
  const first = main.dataset.at === undefined;
  const moved = !first && main.dataset.at !== location.hash;
  main.dataset.at = location.hash;
  if (!make || (["day", "find", "message", "ride", "user"].includes(page) && !parts[0])) {
    main.replaceChildren(h("div", { class: "state empty" }, h("h1", {}, "There is no such page"), h("p", {}, link("", "Go to the overview"))));
    title("No such page");
    return;
  }
  const made = make({ id: parts[0], asked, session, title });
  main.replaceChildren(...[made].flat(Infinity).filter(Boolean));
  if (moved) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
    say(document.title);
  }
}

async function begin() {
  try {
    session = await api.send("GET", "/v1/session");
  } catch (error) {
    if (error.status === 401 || error.status === 403) signedOut();
    else main.replaceChildren(trouble(error, begin));
    return;
  }
  show();
}

theme(f.theme());
addEventListener("hashchange", show);
document.addEventListener("signed-out", () => session && signedOut());
document.addEventListener("keydown", (event) => {
  const typing = /^(input|select|textarea)$/i.test(event.target.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const field = document.getElementById("find");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  }
});
main.replaceChildren(later(() => new Promise(() => {})));
begin();
