/** Who is writing, and a way to stop an agent. */

import { worked } from "../store/turns.js";
import { h, setText } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */

export const STOP = "🛑";

export class TypingLine {
  #words = h("span", {});
  #dots = h("span.dots", { "aria-hidden": "true" }, h("i", {}), h("i", {}), h("i", {}));
  #typing = h("p.typing", { hidden: true }, this.#dots, this.#words);
  #stop = h("button.stop", { type: "button", hidden: true });
  element = h("div.typing-line", {}, this.#typing, this.#stop);

  /** @param {(target: string) => void} onStop */
  constructor(onStop) {
    this.#stop.addEventListener("click", () => onStop(this.#stop.dataset.target));
  }

  /**
   * @param {Room} room
   * @param {string[]} writers user ids of those who write here
   * @param {Item[]} items what was said here, oldest first
   */
  update(room, writers, items) {
    const names = writers.map((id) => room.member(id).name);
    this.#typing.hidden = !names.length;
    const some = names.length > 2 ? `${names.length} people` : names.join(" and ");
    if (names.length) setText(this.#words, `${some} ${names.length > 1 ? "are" : "is"} writing …`);
    this.#updateStop(worked(room, writers, items));
  }

  /** @param {Item|null} target */
  #updateStop(target) {
    this.#stop.hidden = !target;
    if (!target) return;
    const asked = target.reactions.some((one) => one.key === STOP && one.own);
    this.#stop.dataset.target = target.id ?? "";
    this.#stop.disabled = asked;
    setText(this.#stop, asked ? "Stopping …" : "Stop");
    this.#stop.title = asked ? "" : "Stop the agent: sends the reaction 🛑";
  }
}
