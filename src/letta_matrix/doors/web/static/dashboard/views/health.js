/** What is wrong and what to do about it; what failed lately; figures. */

import { h, icon } from "../../chat/views/dom.js";
import { Keyed } from "./keyed.js";
import { capital, plain, roomAddress, span, when } from "./words.js";

const ORDER = /** @type {const} */ ({ trouble: 0, warning: 1, ok: 2 });
const WORDS = /** @type {const} */ ({ trouble: "trouble", warning: "to be known", ok: "ok" });

export class Health {
  title = "Health";
  #checks = h("ul.checks");
  #failures = h("ul.rows");
  #none = h("p.empty", {}, "No turn has failed lately.");
  #agents = h("ul.cards");
  #replicas = h("ul.checks");
  #figures = h("dl.facts");

  /** @param {Record<string, any>} context */
  constructor({ live }) {
    this.live = live;
    this.checks = new Keyed(this.#checks, (one) => one.name, check);
    this.failures = new Keyed(this.#failures, (one) => one.turn_id, (one) => this.#failure(one));
    this.agents = new Keyed(this.#agents, ([id]) => id, ([id, why]) =>
      h("li.card.trouble", {}, h("h3", {}, live.nameOf(id)), h("p", {}, sentence(why))));
    this.replicas = new Keyed(this.#replicas, (one) => one.replica, replica);
    this.replicasTitle = h("h2", {}, "Replicas");
    this.agentsTitle = h("h2", {}, "Agents in trouble");
    this.element = h("section", { "aria-label": "Health" },
      h("h2", {}, "Checks"), this.#checks,
      this.replicasTitle, this.#replicas,
      this.agentsTitle, this.#agents,
      h("h2", {}, "Failures"), h("p.hint", {}, "The newest ten among the last 1,000 turns. In the room one asks again: by 🔁 where that is offered."), this.#none, this.#failures,
      h("h2", {}, "Figures"), this.#figures,
    );
    this.actions = {};
  }

  render() {
    const { health, failures } = this.live.state;
    if (!health) return;
    this.checks.render([...health.checks].sort((one, other) => ORDER[one.state] - ORDER[other.state]));
    const replicas = health.replica?.replicas ?? [];
    this.replicasTitle.hidden = !replicas.length;
    this.replicas.render(replicas);
    const troubled = Object.entries(health.agents_in_trouble);
    this.agentsTitle.hidden = !troubled.length;
    this.agents.render(troubled);
    this.failures.render(failures);
    this.#none.hidden = failures.length > 0;
    const facts = [
      ["Version", health.version],
      ["Running for", span(health.uptime_seconds)],
      ["Homeserver answers in", span(health.homeserver_latency_ms / 1000)],
      ["Requests that wrote", health.homeserver_writes],
      ["Turns that run or wait", health.turns_waiting],
      ["Messages over budget", health.turns_refused],
    ];
    this.#figures.replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
  }

  /** @param {Record<string, any>} turn */
  #failure(turn) {
    const said = turn.notices.length ? turn.notices : ["It failed without a word: the bridge's log says why."];
    const name = this.live.nameOf(turn.agent_id);
    return h("li.row.failure", {},
      h("h3", {}, name, " ", h("small", {}, "for ", h("code", {}, turn.sender), ", ", when(turn.finished_at ?? turn.sent_at))),
      ...said.map((text) => h("p", {}, plain(text))),
      h("a.open-room", { href: roomAddress(turn.room_id), target: "_blank", title: "Open the room" },
        icon("thread"), h("span.visually-hidden", {}, `Open the room where ${name} failed`)),
    );
  }
}

/** @param {string} text */
function sentence(text) {
  return `${capital(text)}${/[.!?]$/.test(text) ? "" : "."}`;
}

/** @param {Record<string, any>} one */
function replica(one) {
  const silent = one.state === "silent";
  const cut = !silent && one.reaches_homeserver === false;
  const state = silent || cut ? "warning" : "ok";
  const reaches = cut ? ", does not reach the homeserver" : "";
  const heard = silent ? `, last heard of ${span(one.seen_seconds_ago)} ago` : "";
  return h(`li.check.${state}`, {},
    h("span.lamp", {}), h("strong", {}, one.address ?? one.replica),
    h("p", {}, `${one.state}${reaches}, version ${one.version}${heard}`));
}

/** @param {Record<string, any>} one */
function check(one) {
  return h(`li.check.${one.state}`, {},
    h("span.lamp", {}), h("strong", {}, one.name), h("span.visually-hidden", {}, `: ${WORDS[one.state]}`),
    one.says && h("p", {}, sentence(one.says)),
    one.remedy && h("p.remedy", {}, h("strong", {}, "What to do: "), sentence(one.remedy)),
    one.who && h("p.fine", {}, one.who));
}
