/** Who may come in by a token: listed, made, revoked. */

import { confirmed } from "../../chat/views/confirm.js";
import { h } from "../../chat/views/dom.js";
import { asked, choice, field, shown } from "./dialogs.js";
import { Keyed } from "./keyed.js";
import { counted, when } from "./words.js";

/** What scopes are for. Which there are, the bridge tells. @type {Record<string, string>} */
const WORDS = {
  read: "read rooms and messages",
  write: "send messages",
  rooms: "make and change rooms",
  agents: "see agents and talk to them",
  metrics: "read the figures of /metrics",
  admin: "run the bridge",
};
const PAGE = 200;
const DAY = 86400;

export class Tokens {
  title = "Tokens";
  #list = h("ul.rows");
  #past = h("ul.rows");
  #over = h("details.removed", { hidden: true });

  /** @param {Record<string, any>} context */
  constructor({ api, live, session, toast }) {
    this.api = api;
    this.live = live;
    this.session = session;
    this.toast = toast;
    this.list = new Keyed(this.#list, (one) => one.token_id, (one) => this.#row(one));
    this.past = new Keyed(this.#past, (one) => one.token_id, (one) => this.#row(one));
    this.#over.append(h("summary", {}, h("span.count")), this.#past);
    this.element = h("section", { "aria-label": "Tokens" },
      h("div.toolbar", {}, h("p.lead", {}, "Each acts as the bot or as one agent, within its scopes."),
        h("button.primary", { type: "button", "data-do": "create" }, "New token")),
      this.#list, this.#over);
    this.actions = { create: () => this.#create(), revoke: ({ token }) => this.#revoke(token) };
    /** @type {Record<string, any>[]} */
    this.tokens = [];
  }

  opened() {
    this.#read().catch((error) => this.toast(error.message));
  }

  render() {
    const now = Date.now() / 1000;
    const isOver = (/** @type {Record<string, any>} */ one) => one.revoked_at != null || (one.expires_at != null && one.expires_at <= now);
    const newest = [...this.tokens].reverse();
    const over = newest.filter(isOver);
    this.list.render(newest.filter((one) => !isOver(one)));
    this.past.render(over);
    this.#over.hidden = !over.length;
    this.#over.querySelector(".count").textContent = `${over.length} revoked or ended`;
  }

  async #read() {
    const tokens = [];
    let after = null;
    do {
      const page = await this.api.call("GET", "/tokens", { query: { limit: PAGE, ...(after && { after }) } });
      tokens.push(...page.tokens);
      after = page.next;
    } while (after);
    this.tokens = tokens;
    this.render();
  }

  /** @param {Record<string, any>} one */
  #row(one) {
    const mine = one.token_id === this.session.tokenId;
    const end = one.revoked_at ? ["revoked ", when(one.revoked_at)] : one.expires_at ? [one.expires_at * 1000 > Date.now() ? "ends " : "ended ", when(one.expires_at)] : ["does not end"];
    return h("li.row.token", {},
      h("span.who", {}, h("strong", {}, one.label || "no label", mine && h("span.state.busy", {}, "this page")),
        h("small", {}, h("code", {}, one.token_id), " as ", one.agent_id ? this.live.nameOf(one.agent_id) : "the bot")),
      h("span.scopes", {}, ...one.scopes.map((scope) => h(`span.scope.${scope}`, {}, scope)),
        one.rooms && h("span.scope", {}, counted(one.rooms.length, "room"))),
      h("small.end", {}, ...end),
      one.revoked_at == null
        ? h("button", { type: "button", "data-do": "revoke", "data-token": one.token_id, "aria-label": `Revoke ${one.label || one.token_id}` }, "Revoke")
        : h("span"));
  }

  async #create() {
    const agents = [...this.live.state.agents.values()].filter(({ status }) => status === "active");
    // A token grants no more than the one that it is made with.
    const { scopes } = await this.api.call("GET", "/whoami");
    const known = Object.keys(WORDS).filter((scope) => scopes.includes(scope));
    const boxes = [...new Set([...known, ...scopes])].map((scope) =>
      h("label.check-box", {}, h("input", { type: "checkbox", name: "scopes", value: scope, checked: scope === "read" }),
        h("span", {}, h("strong", {}, scope), ` ${WORDS[scope] ?? ""}`)));
    const fields = [
      field("What it is for", { name: "label", maxlength: 100, required: true }),
      choice("Acts as", "agent_id", [["", "the bot"], ...agents.map(({ agent_id: id, name }) => [id, name])]),
      h("fieldset.boxes", {}, h("legend", {}, "It may"), ...boxes),
      field("Days until it ends", { name: "days", type: "number", min: 1, max: 3650, value: 90, required: true }),
    ];
    const made = await asked({ title: "A new token", yes: "Make it", fields }, (given) =>
      this.api.call("POST", "/tokens", { body: {
        label: given.get("label"),
        agent_id: given.get("agent_id"),
        scopes: given.getAll("scopes"),
        expires_in: Number(given.get("days")) * DAY,
      } }));
    if (!made) return;
    await this.#read();
    const secret = h("input.secret", { type: "text", readonly: true, value: made.token, "aria-label": "The token" });
    const copy = h("button", { type: "button", onclick: () => navigator.clipboard.writeText(made.token).then(() => (copy.textContent = "Copied"), () => secret.select()) }, "Copy");
    await shown("Keep it now", h("p", {}, "It is shown this once, and kept nowhere."), h("div.copy", {}, secret, copy));
  }

  /** @param {string} id */
  async #revoke(id) {
    const one = this.tokens.find(({ token_id: token }) => token === id);
    const own = id === this.session.tokenId ? " It is the one of this page: you are signed out." : "";
    const text = `Whoever uses it is refused at once.${own}`;
    if (!(await confirmed({ title: `Revoke ${one?.label || id}?`, text, yes: "Revoke" }))) return;
    await this.api.call("DELETE", `/tokens/${id}`);
    this.toast("It is revoked.");
    await this.#read();
  }
}
