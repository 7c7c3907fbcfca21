// The interface that everybody else uses too, asked with the browser's cookie.

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body.message || `the platform answered ${status}`);
    Object.assign(this, { status, code: body.code || "", retryAfter });
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
let life = new AbortController();

// What the page before still waits for is of no use to anybody.
export function turn() {
  life.abort();
  life = new AbortController();
}

export const alive = () => life.signal;

export async function send(method, path, { params = {}, headers = {}, signal = life.signal } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  const answer = await fetch(url, { method, headers, signal, credentials: "same-origin" });
  // One that the page no longer waits for breaks off here: only an error may be no JSON.
  if (answer.ok) return answer.status === 204 ? {} : answer.json();
  throw new ApiError(answer.status, await answer.json().catch(() => ({})), Number(answer.headers.get("retry-after")) || 0);
}

// GET; what says to come back later is asked again a few times.
export async function get(path, params = {}, signal = life.signal) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await send("GET", path, { params, signal });
    } catch (error) {
      if (error.status === 401) document.dispatchEvent(new Event("signed-out"));
      if (![429, 503].includes(error.status) || attempt >= 3 || signal.aborted) throw error;
      await pause(Math.min(3, error.retryAfter || 1));
    }
  }
}

// Items of a list, page by page, no more than `most`; `next` is where the rest begins.
export async function list(path, params, most = 1000) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(path, { ...params, limit: Math.min(1000, most - items.length), cursor });
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < most);
  return { items, next: cursor };
}

// What a platform may not have yet: null where the route is not there.
export async function perhaps(path, params) {
  try {
    return await get(path, params);
  } catch (error) {
    if (error.status === 404 && error.code === "not_found") return null;
    throw error;
  }
}

export const user = (id) => `/v1/users/${encodeURIComponent(id)}`;
export const ride = (id) => `/v1/rides/${encodeURIComponent(id)}`;
export const message = (id) => `/v1/messages/${encodeURIComponent(id)}`;
