/** How all stands, as the bridge tells it: read as long as somebody is signed in. */

import { ProblemError } from "./api.js";

/**
 * @typedef {object} State
 * @property {Record<string, any>|null} health
 * @property {Map<string, Record<string, any>>} agents by id
 * @property {Record<string, any>[]} runtimes
 * @property {Record<string, any>[]} turns newest first
 * @property {Record<string, any>[]} failures newest first
 * @property {Record<string, any>[]} approvals
 */

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10000;

export class Live extends EventTarget {
  /** @type {State} */
  state = { health: null, agents: new Map(), runtimes: [], turns: [], failures: [], approvals: [] };
  online = false;
  #stopping = new AbortController();

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
  }

  /** Reads until it is stopped; begins anew whenever the bridge goes away. */
  async run() {
    const { signal } = this.#stopping;
    let pause = FIRST_PAUSE;
    while (!signal.aborted) {
      try {
        for await (const event of this.api.events("/overview/events", signal)) {
          pause = FIRST_PAUSE;
          this.#take(event);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ProblemError && error.status < 429) {
          // 401 was told already; all else of this kind does not change by asking again.
          if (error.status !== 401) this.api.onEnded(error.message);
          return;
        }
      }
      this.#setOnline(false);
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }

  stop() {
    this.#stopping.abort();
  }

  /** @param {{name: string, data: any}} event */
  #take({ name, data }) {
    if (name === "agents") for (const agent of data) this.state.agents.set(agent.agent_id, agent);
    else if (name in this.state) this.state[name] = data;
    this.#setOnline(true);
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }

  /** @param {boolean} online */
  #setOnline(online) {
    if (online === this.online) return;
    this.online = online;
    this.dispatchEvent(new CustomEvent("online"));
  }

  /** @param {string} id */
  nameOf(id) {
    return this.state.agents.get(id)?.name?.trim() || id || "the bridge";
  }
}
