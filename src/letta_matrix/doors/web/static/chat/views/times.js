/** Dates and times as a person reads them. */

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "long" });
const dayOfYear = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const short = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

/** @param {number} ts milliseconds */
export const clockTime = (ts) => clock.format(ts);

/** @param {number} ts milliseconds */
export const fullTime = (ts) => full.format(ts);

/** @param {number} ts milliseconds */
function daysAgo(ts) {
  return Math.round((new Date().setHours(0, 0, 0, 0) - new Date(ts).setHours(0, 0, 0, 0)) / 864e5);
}

/** A line between two days. @param {number} ts milliseconds */
export function dayTitle(ts) {
  const days = daysAgo(ts);
  if (days < 2) return capital(relative.format(-days, "day"));
  if (days < 7) return weekday.format(ts);
  return days < 180 ? day.format(ts) : dayOfYear.format(ts);
}

/** For a list: the time today, else the day. @param {number} ts milliseconds */
export function listTime(ts) {
  return daysAgo(ts) < 1 ? clockTime(ts) : short.format(ts);
}

/** @param {string} text */
function capital(text) {
  return text.charAt(0).toLocaleUpperCase() + text.slice(1);
}
