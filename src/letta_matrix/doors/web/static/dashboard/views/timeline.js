/** A turn as a picture: when it came, was handed over, had its first words, and was over. */

import { h } from "../../chat/views/dom.js";
import { svg } from "./svg.js";
import { capital, clock, span } from "./words.js";

/** @typedef {{name: string, at: number, part: string}} Mark `part` is what led to it */

const PARTS = /** @type {const} */ ({ wait: "waited", think: "until its first words", write: "wrote" });

/**
 * The moments of a turn, as far as they have come.
 *
 * @param {Record<string, any>} turn
 * @returns {Mark[]}
 */
export function marksOf(turn) {
  const came = turn.arrived_at ?? turn.sent_at;
  const marks = [{ name: "Received", at: came, part: "" }];
  if (turn.given_at) marks.push({ name: "Handed over", at: turn.given_at, part: "wait" });
  if (turn.spoke_at) marks.push({ name: "First text", at: turn.spoke_at, part: "think" });
  if (turn.finished_at) marks.push({ name: ending(turn), at: turn.finished_at, part: turn.spoke_at ? "write" : turn.given_at ? "think" : "wait" });
  // Clocks may have been set meanwhile.
  marks.forEach((mark, index) => (mark.at = Math.max(mark.at, marks[index - 1]?.at ?? mark.at)));
  return marks;
}

/** @param {Record<string, any>} turn */
function ending(turn) {
  return turn.outcome === "answered" ? "Final" : capital(turn.outcome ?? "over");
}

/** How long a turn has taken, in seconds. @param {Record<string, any>} turn */
export function lengthOf(turn) {
  const end = turn.finished_at ?? Date.now() / 1000;
  return Math.max(end - (turn.arrived_at ?? turn.sent_at), 0);
}

/**
 * A bar with a part for each stage.
 *
 * @param {Record<string, any>} turn
 * @param {number} [whole] seconds that the full width stands for; the turn's own without it
 * @param {boolean} [marked] with a dot at each moment
 */
export function bar(turn, whole, marked = false) {
  const marks = marksOf(turn);
  const begin = marks[0].at;
  const length = lengthOf(turn);
  const full = Math.max(whole ?? length, 0.001);
  const edge = marked ? 1.5 : 0;
  const place = (/** @type {number} */ at) => edge + Math.min((at - begin) / full, 1) * (100 - 2 * edge);
  const stretches = marks.slice(1).map(({ at, part }, index) => stretch(place(marks[index].at), place(at), part));
  if (!turn.finished_at) {
    const open = turn.spoke_at ? "write" : turn.given_at ? "think" : "wait";
    stretches.push(stretch(place(marks[marks.length - 1].at), place(begin + length), `${open}.open`));
  }
  const dots = marked ? marks.map(({ at, part }) => svg(`circle.dot.${part || "came"}`, { cx: `${place(at)}%`, cy: "50%", r: 5 })) : [];
  const told = { role: "img", "aria-label": words(turn, marks), width: "100%" };
  return svg(`svg.timeline.${marked ? "large" : "small"}`, told, ...stretches, ...dots);
}

/** @param {number} from @param {number} to @param {string} part */
function stretch(from, to, part) {
  return svg(`rect.part.${part}`, { x: `${from}%`, width: `${Math.max(to - from, 0.6)}%`, y: "25%", height: "50%", rx: 3 });
}

/** The picture with its moments in words. @param {Record<string, any>} turn */
export function timeline(turn) {
  const marks = marksOf(turn);
  const items = marks.map(({ name, at, part }, index) =>
    h("li", { class: part || "came" },
      h("strong", {}, name),
      h("span", {}, index ? `+${span(at - marks[0].at)}` : clock(at)),
    ),
  );
  return h("div.picture", {}, bar(turn, undefined, true), h("ol.moments", {}, ...items));
}

/** @param {Record<string, any>} turn @param {Mark[]} marks */
function words(turn, marks) {
  const stages = marks.slice(1).map(({ at, part }, index) => `${PARTS[part]} ${span(at - marks[index].at)}`);
  return [...stages, turn.finished_at ? `${span(lengthOf(turn))} in all` : "goes on"].join(", ");
}
