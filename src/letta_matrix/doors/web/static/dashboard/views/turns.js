/** The newest turns, each with its picture, and how fast and how many they are. */

import { h } from "../../chat/views/dom.js";
import { localpart } from "../../chat/store/ids.js";
import { Keyed } from "./keyed.js";
import { plots } from "./plots.js";
import { bar, lengthOf, timeline } from "./timeline.js";
import { plain, roomAddress, span, when } from "./words.js";

const RANGES = /** @type {const} */ ([["Hour", 3600], ["Day", 86400], ["Week", 604800]]);
const AGAIN = 5000;

export class Turns {
  title = "Turns";
  #pace = h("div.plots", { "aria-live": "off" });
  #list = h("ul.rows");
  #empty = h("p.empty", { hidden: true }, "Nobody has asked an agent anything yet.");
  /** @type {Map<string, {of: string, told: Record<string, any>}>} what is known of turns that are open */
  #details = new Map();
  #seconds = RANGES[0][1];
  #asked = 0;
  #timer = 0;

  /** @param {Record<string, any>} context */
  constructor({ api, live, toast }) {
    this.api = api;
    this.live = live;
    this.toast = toast;
    this.list = new Keyed(this.#list, (turn) => turn.turn_id, (turn) => this.#row(turn));
    this.#list.addEventListener("toggle", (event) => this.#opened(/** @type {HTMLDetailsElement} */ (event.target)), true);
    const ranges = RANGES.map(([words, seconds]) =>
      h("label", {}, h("input", { type: "radio", name: "range", value: seconds, checked: seconds === this.#seconds }), h("span", {}, words)));
    const chosen = h("fieldset.ranges", {}, h("legend.visually-hidden", {}, "How far back"), ...ranges);
    chosen.addEventListener("change", (/** @type {any} */ event) => {
      this.#seconds = Number(event.target.value);
      this.#askPace();
    });
    this.element = h("section", { "aria-label": "Turns" },
      h("div.heading", {}, h("h2", {}, "Pace"), chosen), this.#pace,
      h("h2", {}, "Newest"), this.#empty, this.#list);
    this.actions = { stop: ({ turn }) => this.#stop(turn) };
  }

  opened() {
    this.#askPace();
  }

  render(what = "turns") {
    this.#keepPace();
    // With every beat of the health too: what goes on grows meanwhile.
    if (what === "turns" || what === "agents" || what === "health") this.#renderList();
    for (const open of this.#list.querySelectorAll("details[open]")) this.#opened(/** @type {HTMLDetailsElement} */ (open));
  }

  #renderList() {
    const { turns } = this.live.state;
    this.#empty.hidden = turns.length > 0 || !this.live.state.health;
    // One turn of hours is not to leave the others a hair's breadth.
    const lengths = turns.map(lengthOf).sort((one, other) => one - other);
    this.longest = lengths[Math.floor(lengths.length * 0.9)] ?? 0;
    this.list.render(turns);
  }

  /** @param {Record<string, any>} turn */
  #row(turn) {
    const [kind, words] = standing(turn);
    return h("li.row", {},
      h("details", { "data-turn": turn.turn_id },
        h("summary.turn", {},
          h("span.who", {}, h("strong", {}, this.live.nameOf(turn.agent_id)), h("small", {}, turn.kind === "speech" ? "unasked" : `for ${localpart(turn.sender)}`)),
          h(`span.state.${kind}`, {}, words),
          h("span.bar", {}, bar(turn, this.longest)),
          h("span.length", {}, turn.finished_at ? span(lengthOf(turn)) : "…"),
          when(turn.sent_at),
        ),
        this.#more(turn),
      ),
    );
  }

  /** @param {Record<string, any>} turn */
  #more(turn) {
    const told = this.#details.get(turn.turn_id)?.told;
    return h("div.more", {},
      timeline(turn),
      ...(told?.notices ?? []).map((text) => h("p.notice", {}, plain(text))),
      told?.text && h("blockquote", {}, plain(told.text)),
      told?.waiting_for_approval.length > 0 && h("p", {}, h("a", { href: "#/approvals" }, "It waits for your answer."),),
      h("p.fine", {}, h("code", {}, turn.turn_id), " from ", h("code", {}, turn.sender)),
      h("div.buttons", {},
        !turn.finished_at && h("button", { type: "button", "data-do": "stop", "data-turn": turn.turn_id }, "Stop it"),
        h("a.button", { href: roomAddress(turn.room_id), target: "_blank" }, "Open the room")),
    );
  }

  /** @param {HTMLDetailsElement} details */
  async #opened(details) {
    const id = details.dataset.turn;
    const turn = this.live.state.turns.find(({ turn_id: one }) => one === id);
    if (!details.open || !id || !turn) return;
    const of = JSON.stringify(turn);
    if (this.#details.get(id)?.of === of && turn.finished_at) return;
    const told = await this.api.call("GET", `/turns/${id}`).catch(() => null);
    if (!told) return;
    this.#details.set(id, { of, told });
    this.list.render(this.live.state.turns);
  }

  /** @param {string} id */
  async #stop(id) {
    await this.api.call("POST", `/turns/${id}/cancel`, { body: {} });
    this.toast("It is stopped. What it has said stays.");
  }

  #keepPace() {
    if (this.#timer) return;
    const rest = Math.max(this.#asked + AGAIN - Date.now(), 0);
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.element.isConnected) this.#askPace();
    }, rest);
  }

  async #askPace() {
    this.#asked = Date.now();
    const seconds = this.#seconds;
    const pace = await this.api.call("GET", "/overview/pace", { query: { seconds } }).catch(() => null);
    if (pace && seconds === this.#seconds) this.#pace.replaceChildren(...plots(pace));
  }
}

/** @param {Record<string, any>} turn @returns {[string, string]} */
export function standing(turn) {
  if (turn.status === "queued") return ["wait", "waits"];
  if (turn.status === "running") return ["busy", turn.spoke_at ? "writing" : "thinking"];
  if (turn.status === "replying") return ["busy", "sending"];
  if (turn.outcome === "answered") return ["good", "answered"];
  return [turn.outcome === "failed" ? "bad" : "gone", turn.outcome ?? "over"];
}
