/** Every agent: how it stands, its last turn, what waits for it, and what is done with it. */

import { tintOf } from "../../chat/views/avatar.js";
import { h, icon } from "../../chat/views/dom.js";
import { asked, choice, field } from "./dialogs.js";
import { Keyed } from "./keyed.js";
import { bar, lengthOf, timeline } from "./timeline.js";
import { counted, roomAddress, span, when } from "./words.js";

/** From so many on there is a field to search them. */
const MANY = 8;

export class Agents {
  title = "Agents";
  #tiles = h("dl.tiles");
  #list = h("ul.rows");
  #gone = h("ul.rows");
  #removed = h("details.removed", { hidden: true });
  #search = h("input.search", { type: "search", "aria-label": "Search agents", placeholder: "Search", hidden: true });
  #empty = h("p.empty", { hidden: true }, "No agents yet. A runtime's agents appear here by themselves; or create one.");

  /** @param {Record<string, any>} context */
  constructor({ api, live, toast }) {
    this.api = api;
    this.live = live;
    this.toast = toast;
    this.list = new Keyed(this.#list, (agent) => agent.agent_id, (agent) => this.#row(agent));
    this.gone = new Keyed(this.#gone, (agent) => agent.agent_id, (agent) => this.#row(agent));
    this.#search.addEventListener("input", () => this.render());
    const summary = h("summary", {}, h("span.count"));
    const archive = h("button", { type: "button", "data-do": "archiveAll" }, "Take their rooms out of the space");
    this.#removed.append(summary, archive, this.#gone);
    this.element = h("section", { "aria-label": "Agents" },
      this.#tiles,
      h("div.toolbar", {}, this.#search,
        h("button", { type: "button", "data-do": "sync" }, "Look for agents now"),
        h("button.primary", { type: "button", "data-do": "create" }, "New agent")),
      this.#empty, this.#list, this.#removed,
    );
    this.actions = {
      create: () => this.#create(),
      sync: () => this.#sync(),
      rename: ({ agent }) => this.#rename(live.state.agents.get(agent)),
      archive: ({ agent }) => this.#archive({ agent_id: agent }),
      archiveAll: () => this.#archive({}),
    };
  }

  render(what = "agents") {
    if (!["agents", "approvals", "health"].includes(what)) return;
    const all = [...this.live.state.agents.values()];
    const wanted = this.#search.value.trim().toLowerCase();
    const found = all.filter(({ name }) => name.toLowerCase().includes(wanted)).sort(byName);
    const removed = found.filter(({ status }) => status === "removed");
    const active = found.filter(({ status }) => status !== "removed");
    this.#search.hidden = all.length < MANY;
    this.#empty.hidden = all.length > 0 || !this.live.state.health;
    this.#removed.hidden = !removed.length;
    this.#removed.querySelector(".count").textContent = `${counted(removed.length, "agent")} removed at the runtime`;
    this.list.render(active);
    this.gone.render(removed);
    this.#renderTiles(all.filter(({ status }) => status !== "removed"));
  }

  /** @param {Record<string, any>[]} active */
  #renderTiles(active) {
    const { approvals, health } = this.live.state;
    const sum = (/** @type {string} */ name) => active.reduce((all, one) => all + one[name], 0);
    const tiles = [
      ["Agents", active.length, ""],
      ["At work", sum("running"), sum("running") ? "busy" : ""],
      ["Waiting turns", sum("waiting"), ""],
      ["To answer", approvals.length, approvals.length ? "busy" : ""],
      ["In trouble", active.filter((one) => one.trouble).length, active.some((one) => one.trouble) ? "bad" : ""],
      ["Homeserver", health ? span(health.homeserver_latency_ms / 1000) : "–", ""],
    ];
    this.#tiles.replaceChildren(...tiles.map(([name, value, kind]) =>
      h("div", { class: kind }, h("dt", {}, name), h("dd", {}, String(value)))));
  }

  /** @param {Record<string, any>} agent */
  #row(agent) {
    const [kind, words] = this.#standing(agent);
    const { last_turn: last } = agent;
    const initial = (agent.name.match(/[\p{L}\p{N}]/u)?.[0] ?? "#").toUpperCase();
    const queue = agent.running + agent.waiting;
    return h("li.row", {},
      h("details", {},
        h("summary.agent", {},
          h(`span.avatar.agent.tint-${tintOf(agent.user_id)}`, { "aria-hidden": "true" }, initial),
          h("span.who", {}, h("strong", {}, agent.name.trim() || agent.agent_id), h("small", {}, agent.runtime)),
          h(`span.state.${kind}`, {}, words),
          h("span.queue", {}, queue ? `${queue} in its queue` : ""),
          last ? h("span.last", {}, bar(last), h("span", {}, when(last.sent_at), last.outcome === "failed" && h("small.bad", {}, " · failed"))) : h("span.last", {}, h("small", {}, "no turn yet")),
        ),
        this.#details(agent),
      ),
      agent.room_id && h("a.open-room", { href: roomAddress(agent.room_id), target: "_blank", title: "Open its room" },
        icon("thread"), h("span.visually-hidden", {}, `Open the room of ${agent.name}`)),
    );
  }

  /** @param {Record<string, any>} agent */
  #details(agent) {
    const { last_turn: last } = agent;
    const may = this.live.state.runtimes.find(({ name }) => name === agent.runtime)?.creates;
    const press = (/** @type {string} */ what, /** @type {string} */ words) =>
      h("button", { type: "button", "data-do": what, "data-agent": agent.agent_id }, words);
    return h("div.more", {},
      agent.trouble && h("p.problem", {}, agent.trouble),
      agent.description && h("p", {}, agent.description),
      last && h("div.turn-of", {}, h("h2.minor", {}, `Last turn: ${last.outcome ?? last.status}, ${span(lengthOf(last))}`), timeline(last)),
      h("dl.facts", {},
        h("dt", {}, "Agent"), h("dd", {}, h("code", {}, agent.agent_id)),
        h("dt", {}, "User"), h("dd", {}, h("code", {}, agent.user_id)),
        h("dt", {}, "Room"), h("dd", {}, h("code", {}, agent.room_id ?? "not made yet")),
        h("dt", {}, "Known since"), h("dd", {}, when(agent.created_at)),
      ),
      h("div.buttons", {},
        agent.status === "removed" ? press("archive", "Take its room out of the space") : may && press("rename", "Rename"),
      ),
    );
  }

  /** @param {Record<string, any>} agent @returns {[string, string]} */
  #standing(agent) {
    const asks = this.live.state.approvals.some(({ agent_id: id }) => id === agent.agent_id);
    if (agent.status === "removed") return ["gone", "removed"];
    if (agent.trouble) return ["bad", "in trouble"];
    if (asks) return ["busy", "asks you"];
    if (agent.running) return ["busy", "at work"];
    if (agent.waiting) return ["wait", "waits"];
    return agent.room_id ? ["good", "ready"] : ["wait", "being set up"];
  }

  async #create() {
    const places = this.live.state.runtimes.filter(({ creates }) => creates).map(({ name }) => name);
    if (!places.length) return this.toast("No runtime lets agents be created.");
    const fields = [
      field("Name", { name: "name", required: true, maxlength: 100 }),
      places.length > 1 && choice("Runtime", "runtime", places.map((name) => [name, name])),
      field("Model", { name: "model", maxlength: 200 }, "as the runtime names it; empty: its own choice"),
      field("Description", { name: "description", maxlength: 2000 }),
    ].filter(Boolean);
    const made = await asked({ title: "A new agent", yes: "Create", fields }, (given) =>
      this.api.call("POST", "/agents", { body: { runtime: places[0], ...Object.fromEntries(given) } }));
    if (made) this.toast(`${made.name} is there${made.room_id ? "" : "; its room comes by itself"}.`);
  }

  /** @param {Record<string, any>} agent */
  async #rename(agent) {
    const fields = [field("Name", { name: "name", required: true, maxlength: 100, value: agent.name })];
    const text = "It is renamed at its runtime and on Matrix. Its user id stays.";
    const done = await asked({ title: `Rename ${agent.name}`, text, yes: "Rename", fields }, (given) =>
      this.api.call("PATCH", `/agents/${encodeURIComponent(agent.agent_id)}`, { body: Object.fromEntries(given) }));
    if (done) this.toast(`It is called ${done.name} now.`);
  }

  async #sync() {
    const { agents, troubles } = await this.api.call("POST", "/agents/sync");
    const wrong = Object.entries(troubles).filter(([, why]) => why);
    this.toast(wrong.length ? wrong.map(([name, why]) => `${name}: ${why}`).join("; ") : `${counted(agents, "agent")} found.`);
  }

  /** @param {object} body */
  async #archive(body) {
    const { agents } = await this.api.call("POST", "/agents/archive", { body });
    this.toast(agents.length ? `${counted(agents.length, "room")} taken out of the space.` : "No removed agent's room stands in the space.");
  }
}

/** @param {Record<string, any>} one @param {Record<string, any>} other */
function byName(one, other) {
  return one.name.localeCompare(other.name) || one.agent_id.localeCompare(other.agent_id);
}
