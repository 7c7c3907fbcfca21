// The way in: a link that was opened already, or a key.

import * as api from "./api.js";
import { h } from "./dom.js";

export function signIn(done) {
  const key = h("input", { id: "key", type: "password", autocomplete: "off", required: true, "aria-describedby": "why" });
  const why = h("p", { id: "why", role: "alert", class: "why" }, spent());
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        why.textContent = "";
        try {
          const authorization = `Bearer ${key.value.trim()}`;
          if (!/^[\x20-\x7e]+$/.test(authorization)) throw new Error("a key has no such characters: copy it as `rebu keys` prints it");
          await api.send("POST", "/v1/session", { headers: { authorization } });
          await done();
        } catch (error) {
          why.textContent = error.status || !(error instanceof TypeError) ? `That did not work: ${error.message}` : "The platform does not answer.";
          key.focus();
        }
        button.disabled = false;
      },
    },
    h("label", { for: "key" }, "Read key"),
    key,
    button,
    why,
  );
  return h(
    "section",
    { class: "card signin" },
    h("h1", {}, "Sign in"),
    h("p", {}, "Run this where the platform runs, and open the link that it prints:"),
    h("pre", {}, h("code", {}, "rebu dashboard")),
    h("p", {}, "Or give the read key, which “rebu keys” prints. The browser keeps a cookie that no script can read, and that is good for reading only."),
    form,
  );
}

function spent() {
  if (!new URLSearchParams(location.search).has("token")) return "";
  const [navigation] = performance.getEntriesByType("navigation");
  if (navigation && navigation.responseStatus === 503) return "Whether this link was used before cannot be told now: load the page again in a moment.";
  history.replaceState(null, "", `/${location.hash}`);
  return "This link was opened already, or is too old: ask for another one.";
}
