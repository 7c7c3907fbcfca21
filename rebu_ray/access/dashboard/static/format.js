// Numbers, times and dates for people. Times are shown in one time zone, which the reader chooses.

const stored = (name, otherwise) => {
  try {
    return localStorage.getItem(name) || otherwise;
  } catch {
    return otherwise; // a browser that keeps nothing
  }
};

export function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    return; // it is chosen again next time
  }
}

export const local = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
let zoneNow = stored("rebu-zone", "UTC");
try {
  new Intl.DateTimeFormat("en", { timeZone: zoneNow });
} catch {
  zoneNow = "UTC";
}
export const zone = () => zoneNow;
export function setZone(name) {
  zoneNow = name;
  keep("rebu-zone", name);
}
export const theme = () => stored("rebu-theme", "auto");

const LANGUAGE = "en-GB";
const cache = new Map();
function formatter(options, timeZone = zoneNow) {
  const key = timeZone + JSON.stringify(options);
  if (!cache.has(key)) cache.set(key, new Intl.DateTimeFormat(LANGUAGE, { ...options, timeZone }));
  return cache.get(key);
}

const whole = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const two = new Intl.NumberFormat("en", { maximumFractionDigits: 2, minimumFractionDigits: 2 });
export const NONE = "–";
const known = (value, format) => (value === null || value === undefined || Number.isNaN(value) ? NONE : format(value));

export const count = (n) => known(n, (v) => whole.format(Math.round(v)));
export const tenth = (n) => known(n, (v) => one.format(v));
export const hundredth = (n) => known(n, (v) => two.format(v));
export const percent = (n, digits = 0) => known(n, (v) => `${(100 * v).toFixed(digits)} %`);
export const plural = (n, word, many = `${word}s`) => `${count(n)} ${n === 1 ? word : many}`;
export const metres = (n) => known(n, (v) => (v < 1000 ? `${Math.round(v)} m` : `${(v / 1000).toFixed(v < 10000 ? 2 : 1)} km`));
export const seconds = (n) =>
  known(n, (v) => (v < 1 ? `${Math.round(1000 * v)} ms` : v < 120 ? `${one.format(v)} s` : v < 7200 ? `${Math.round(v / 60)} min` : `${one.format(v / 3600)} h`));
export function bytes(n) {
  return known(n, (v) => {
    const step = v < 1 ? 0 : Math.min(4, Math.floor(Math.log(v) / Math.log(1024)));
    return `${one.format(v / 1024 ** step)} ${["B", "KiB", "MiB", "GiB", "TiB"][step]}`;
  });
}
export const money = (cents, currency) => known(cents, (v) => `${two.format(v / 100)} ${currency || ""}`.trim());

export const time = (at) => known(at, (v) => formatter({ hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(new Date(v)));
export const clock = (at) => known(at, (v) => formatter({ hour: "2-digit", minute: "2-digit" }).format(new Date(v)));
export const moment = (at) =>
  known(at, (v) => formatter({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(new Date(v)));
export const day = (date) => formatter({ weekday: "short", day: "numeric", month: "short" }, "UTC").format(new Date(`${date}T00:00:00Z`));
export const date = (text) => formatter({ day: "numeric", month: "long", year: "numeric" }, "UTC").format(new Date(`${text}T00:00:00Z`));
export const longDay = (date) =>
  formatter({ weekday: "long", day: "numeric", month: "long", year: "numeric" }, "UTC").format(new Date(`${date}T00:00:00Z`));

function parts(ms, timeZone) {
  const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return Object.fromEntries(formatter(options, timeZone).formatToParts(new Date(ms)).map((p) => [p.type, p.value]));
}
export function dateOf(ms, timeZone = zoneNow) {
  const p = parts(ms, timeZone);
  return `${p.year.padStart(4, "0")}-${p.month}-${p.day}`;
}
function offset(ms, timeZone) {
  const p = parts(ms, timeZone);
  return Date.UTC(p.year, p.month - 1, p.day, p.hour, p.minute, p.second) - Math.floor(ms / 1000) * 1000;
}
// When a date begins somewhere (ms): with the clocks put forward or back at midnight, the first moment that has the date.
export function dayStart(date, timeZone = zoneNow) {
  const naive = Date.parse(`${date}T00:00:00Z`);
  const tried = [naive - 86_400_000, naive + 86_400_000].map((at) => naive - offset(at, timeZone));
  return Math.min(...tried.filter((at) => dateOf(at, timeZone) === date), Math.max(...tried));
}
export const plusDays = (date, days) => new Date(Date.parse(`${date}T00:00:00Z`) + 86_400_000 * days).toISOString().slice(0, 10);
export const isDate = (text) => /^\d{4}-\d\d-\d\d$/.test(text || "") && !Number.isNaN(Date.parse(`${text}T00:00:00Z`));

const STATUS = {
  requested: "requested",
  accepted: "accepted",
  in_progress: "in progress",
  completed: "completed",
  cancelled_by_rider: "cancelled by rider",
  cancelled_by_driver: "cancelled by driver",
  failed: "failed",
};
export const status = (name) => STATUS[name] || name || "unknown";
export const words = (name) => (name || "").replaceAll("_", " ");
