/** Throughput and latency as small plots. */

import { h } from "../../chat/views/dom.js";
import { svg } from "./svg.js";
import { counted, span, when } from "./words.js";

const WIDTH = 600;
const HEIGHT = 100;
const FEW = 20;
const hours = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const days = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });

/** @param {Record<string, any>} pace as `/overview/pace` tells it */
export function plots(pace) {
  const from = pace.spans[0].since;
  // Of very many turns the newest alone are counted.
  const cut = pace.since > from && h("p.hint", {}, "There were more than 10,000 turns: those before ", when(pace.since), " are not counted.");
  return [throughput(pace), latency(pace), cut].filter(Boolean);
}

/** @param {Record<string, any>} pace */
function throughput(pace) {
  const most = Math.max(1, ...pace.spans.map((one) => one.answered + one.failed));
  const step = WIDTH / pace.spans.length;
  const bars = pace.spans.flatMap((one, index) => {
    const [good, bad] = [one.answered, one.failed].map((count) => (count / most) * HEIGHT);
    const at = { x: index * step + step * 0.15, width: step * 0.7 };
    return [
      one.answered > 0 && svg("rect.good", { ...at, y: HEIGHT - good, height: good }),
      one.failed > 0 && svg("rect.bad", { ...at, y: HEIGHT - good - bad, height: bad }),
    ];
  });
  const told = `${counted(pace.answered, "message")} answered, ${pace.failed} failed`;
  const keys = [["good", "answered"], ["bad", "failed"]];
  return figure("Messages", told, bars, keys, pace, String(most));
}

/** @param {Record<string, any>} pace */
function latency(pace) {
  const most = Math.max(0.1, ...pace.spans.map((one) => one.whole ?? 0));
  const lines = ["whole", "first_words"].flatMap((name) => line(pace.spans, name, most));
  const told = `half of them had their first words within ${span(pace.first_words)}, and were over within ${span(pace.whole)}`;
  const keys = [["first_words", "first words"], ["whole", "whole answer"]];
  return figure("Seconds", pace.whole == null ? "no answers" : told, lines, keys, pace, span(most));
}

/** @param {Record<string, any>[]} spans @param {string} name @param {number} most */
function line(spans, name, most) {
  const step = WIDTH / spans.length;
  const points = spans
    .map((one, index) => (one[name] == null ? null : [(index + 0.5) * step, HEIGHT - (one[name] / most) * (HEIGHT - 6)]))
    .filter((point) => point !== null);
  const path = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  // A line of no length is drawn as a dot; many would hide the line.
  const dots = (points.length > FEW ? [] : points).map(([x, y]) => svg(`line.spot.${name}`, { x1: x, x2: x + 0.01, y1: y, y2: y }));
  return [points.length > 1 && svg(`polyline.${name}`, { points: path }), ...dots];
}

/**
 * @param {string} title @param {string} told
 * @param {(SVGElement|false)[]} shapes
 * @param {string[][]} keys classes and what they mean
 * @param {Record<string, any>} pace
 * @param {string} most what the top stands for
 */
function figure(title, told, shapes, keys, pace, most) {
  const format = pace.seconds > 86400 ? days : hours;
  const grid = [0, 0.5, 1].map((part) => svg("line.grid", { x1: 0, x2: WIDTH, y1: part * HEIGHT, y2: part * HEIGHT }));
  const box = { viewBox: `0 -3 ${WIDTH} ${HEIGHT + 6}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${told}` };
  return h("figure.plot", {},
    h("figcaption", {}, h("strong", {}, title), ...keys.map(([name, words]) => h(`span.key.${name}`, {}, words)), h("span.most", {}, most)),
    svg("svg", box, ...grid, ...shapes),
    h("div.axis", { "aria-hidden": "true" }, h("span", {}, format.format(pace.spans[0].since * 1000)), h("span", {}, "now")),
  );
}
