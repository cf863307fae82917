/** What agents wait for: a yes or a no; and what is allowed for good. */

import { h } from "../../chat/views/dom.js";
import { asked, field } from "./dialogs.js";
import { Keyed } from "./keyed.js";
import { plain, roomAddress, when } from "./words.js";

const DONE = /** @type {const} */ ({ allow: "Allowed.", always: "Allowed for good.", deny: "Denied." });

export class Approvals {
  title = "Approvals";
  #list = h("ul.cards");
  #kept = h("ul.rows");
  #empty = h("p.empty", {}, "Nothing waits for an answer.");
  #keptTitle = h("h2", { hidden: true }, "Allowed for good");

  /** @param {Record<string, any>} context */
  constructor({ api, live, toast }) {
    this.api = api;
    this.live = live;
    this.toast = toast;
    this.list = new Keyed(this.#list, (one) => one.key, (one) => this.#card(one));
    this.kept = new Keyed(this.#kept, (one) => one.key, (one) => this.#keptRow(one));
    this.element = h("section", { "aria-label": "Approvals" }, this.#empty, this.#list, this.#keptTitle, this.#kept);
    this.actions = {
      answer: ({ key, decision }) => this.#answer(key, { decision }),
      refuse: ({ key }) => this.#refuse(key),
    };
  }

  opened() {
    this.#askKept();
  }

  render(what = "approvals") {
    if (what !== "approvals" && what !== "agents") return;
    const { approvals } = this.live.state;
    this.#empty.hidden = approvals.length > 0;
    this.list.render(approvals);
  }

  /** @param {Record<string, any>} one */
  #card(one) {
    const press = (/** @type {string} */ decision, /** @type {string} */ words, classes = "") =>
      h(`button.answer${classes}`, { type: "button", "data-do": "answer", "data-key": one.key, "data-decision": decision }, words);
    return h("li.card", {},
      h("h2", {}, `May ${plain(this.live.nameOf(one.agent_id))} run `, h("code", {}, one.shown_tool), "?"),
      ...texts(one),
      ...one.warnings.map((text) => h("p.alarm", {}, `⚠️ ${text}`)),
      h("p.fine", {}, "asked ", when(one.asked_at), " for ", h("code", {}, one.requester), ", denied by itself ", when(one.expires_at)),
      h("div.buttons", {},
        press("allow", "Allow", ".allow"),
        press("deny", "Deny", ".deny"),
        one.always && press("always", "Always allow"),
        h("button.link", { type: "button", "data-do": "refuse", "data-key": one.key }, "Deny with a reason"),
        h("a.link", { href: roomAddress(one.room_id), target: "_blank" }, "Open the room")),
    );
  }

  /** @param {Record<string, any>} one */
  #keptRow(one) {
    return h("li.row.kept", {},
      h("div.who", {}, h("strong", {}, `${plain(this.live.nameOf(one.agent_id))}: `, h("code", {}, one.shown_tool)), ...texts(one)),
      h("button", { type: "button", "data-do": "answer", "data-key": one.key, "data-decision": "deny" }, "Take it back"));
  }

  /** @param {string} key @param {{decision: string, reason?: string}} body */
  async #answer(key, body) {
    await this.api.call("POST", `/approvals/${key}`, { body });
    this.toast(DONE[body.decision]);
    this.#askKept();
  }

  /** @param {string} key */
  async #refuse(key) {
    const fields = [field("Reason", { name: "reason", maxlength: 500, required: true }, "the agent is told")];
    await asked({ title: "Deny it", yes: "Deny", fields }, (given) =>
      this.#answer(key, { decision: "deny", reason: String(given.get("reason")) }));
  }

  async #askKept() {
    const { approvals } = await this.api.call("GET", "/approvals", { query: { status: "always" } }).catch(() => ({ approvals: [] }));
    this.#keptTitle.hidden = !approvals.length;
    this.kept.render(approvals);
  }
}

/**
 * What a tool is called with, as the bridge shows it: the names stand apart, as a text may look like one.
 * @param {Record<string, any>} one
 */
function texts(one) {
  return one.shown.map((/** @type {{name: string, text: string}} */ { name, text }) =>
    h("figure.given", {}, h("figcaption", {}, name ? h("code", {}, name) : "All arguments"), h("pre", {}, h("code", {}, text))));
}
