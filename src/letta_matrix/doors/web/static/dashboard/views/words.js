/** Times and names as a person reads them. */

import { fullTime } from "../../chat/views/times.js";
import { h } from "../../chat/views/dom.js";

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const precise = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const UNITS = /** @type {const} */ ([["day", 86400], ["hour", 3600], ["minute", 60]]);
/** What is not seen, and may lead the eye astray: shown by its number. U+FE0F belongs to signs such as ⚠️. */
const UNSEEN = /(?![\n \ufe0f])[\p{Cc}\p{Cf}\p{Cs}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** A span. @param {number|null|undefined} seconds */
export function span(seconds) {
  if (seconds == null) return "–";
  if (seconds < 0.1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 0.95) return `${Math.round(seconds * 100) / 100} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** @param {number} at Unix time in seconds */
export function clock(at) {
  return precise.format(at * 1000);
}

/** How long ago, or how soon. @param {number} at Unix time in seconds */
export function ago(at) {
  const seconds = at - Date.now() / 1000;
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return Math.abs(seconds) < 10 ? "now" : relative.format(Math.trunc(seconds), "second");
}

/** A time, in words; the whole of it as its title. @param {number} at Unix time in seconds */
export function when(at, classes = "") {
  const moment = new Date(at * 1000);
  return h(`time${classes}`, { datetime: moment.toISOString(), title: fullTime(moment.getTime()), "data-at": at }, ago(at));
}

/** Brings the times on the page up to date. */
export function tick() {
  for (const time of document.querySelectorAll("time[data-at]")) {
    const words = ago(Number(/** @type {HTMLElement} */ (time).dataset.at));
    if (time.textContent !== words) time.textContent = words;
  }
}

/** @param {string} text */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** @param {number} count @param {string} one */
export function counted(count, one) {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

/** @param {string} text */
export function plain(text) {
  return text.replace(UNSEEN, (sign) => `\\u${(sign.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`);
}

/** The chat page with a room open. @param {string} roomId */
export function roomAddress(roomId) {
  return `chat#/room/${encodeURIComponent(roomId)}`;
}
