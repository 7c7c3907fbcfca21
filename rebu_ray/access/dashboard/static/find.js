// Whatever has this id.

import * as api from "./api.js";
import { empty, h, later, link, path } from "./dom.js";

export function find({ id, title }) {
  title(`Find ${id}`);
  return [
    h("h1", {}, "Looking for ", h("q", {}, id)),
    later(async () => {
      const places = [["ride", api.ride(id)], ["user", api.user(id)], ["message", api.message(id)]];
      const answers = await Promise.allSettled(places.map(([, address]) => api.get(address)));
      const found = places.filter((_, at) => answers[at].status === "fulfilled").map(([kind]) => kind);
      const failed = answers.find((answer) => answer.status === "rejected" && answer.reason.status !== 404 && answer.reason.status !== 400);
      if (!found.length && failed) throw failed.reason;
      if (found.length === 1) {
        location.replace(`#/${path(found[0], id)}`);
        return null;
      }
      if (!found.length) return empty("Nothing has this id", "Ids are compared as they are, capitals included: copy the whole id of a ride, a person or a message.");
      return h("ul", {}, found.map((kind) => h("li", {}, link(path(kind, id), `The ${kind === "user" ? "person" : kind} ${id}`))));
    }),
  ];
}
