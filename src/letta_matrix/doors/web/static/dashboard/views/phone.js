/** How the phone line is: its phones, and what is wrong. */

import { h } from "../../chat/views/dom.js";
import { counted, roomAddress } from "./words.js";

export class Phone {
  title = "Phone";
  actions = { look: () => this.#look() };

  /** @param {Record<string, any>} context */
  constructor({ api, toast }) {
    this.api = api;
    this.toast = toast;
    this.body = h("div");
    this.element = h("section", { "aria-label": "Phone line" }, this.body);
  }

  opened() {
    this.#look();
  }

  render() {}

  async #look() {
    this.body.setAttribute("aria-busy", "true");
    const line = await this.api.call("GET", "/sms").catch((error) => error);
    this.body.removeAttribute("aria-busy");
    this.body.replaceChildren(...(line instanceof Error ? without(line) : told(line)));
  }
}

/** @param {any} error */
function without(error) {
  const words = error.status === 404
    ? ["No phone line is configured. With one, agents answer text messages: the section ", h("code", {}, "sms"), " of config.yaml, as docs/how-to/sms.md says."]
    : [error.message];
  return [h("p.empty", {}, ...words)];
}

/** @param {Record<string, any>} line */
function told(line) {
  const phones = line.phones.map(({ name, login_id: id, state, reason }) =>
    h("li.row.phone", {}, h("span.who", {}, h("strong", {}, name || id), reason && h("small", {}, reason)),
      h(`span.state.${/^(connected|running)/i.test(state) ? "good" : "bad"}`, {}, state)));
  const unnumbered = line.unnumbered.map((room) => h("li", {}, h("a", { href: roomAddress(room), target: "_blank" }, room)));
  return [
    line.trouble && h("p.problem", {}, line.trouble),
    h("dl.facts", {},
      h("dt", {}, "Line"), h("dd", {}, h("code", {}, line.line || "none")),
      h("dt", {}, "Talks"), h("dd", {}, String(line.talks))),
    h("h2", {}, "Phones"),
    phones.length ? h("ul.rows", {}, ...phones) : h("p.empty", {}, "No phone is paired: say ", h("code", {}, "!sms login"), " in the management room."),
    unnumbered.length && h("div", {}, h("p", {}, `${counted(unnumbered.length, "talk")} in which nobody has a number, so that nobody is answered:`), h("ul", {}, ...unnumbered)),
    h("div.buttons", {}, h("button", { type: "button", "data-do": "look" }, "Look again")),
  ].filter(Boolean);
}
