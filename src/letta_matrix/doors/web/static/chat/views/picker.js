/** The small set of reactions to choose from. */

import { h } from "./dom.js";
import { Popup } from "./popup.js";

const CHOICES = ["👍", "👎", "❤️", "🎉", "🤔", "✅", "❌", "🔁"];

export class ReactionPicker {
  #popup = new Popup("div.picker", "Reactions", { back: "ArrowLeft", on: "ArrowRight" });

  /** @param {(eventId: string, key: string) => void} onChoice */
  constructor(onChoice) {
    this.onChoice = onChoice;
  }

  /** @param {HTMLElement} opener a message's button */
  toggle(opener) {
    const id = opener.closest("article")?.dataset.id;
    const buttons = CHOICES.map((key) => {
      const choose = () => {
        this.close();
        if (id) this.onChoice(id, key);
      };
      return h("button", { type: "button", role: "menuitem", "aria-label": key, onclick: choose }, key);
    });
    this.#popup.toggle(opener, buttons);
  }

  close(refocus = true) {
    this.#popup.close(refocus);
  }
}
