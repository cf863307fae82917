/** What is around every section: how the bridge is, the ways to the sections, and who is signed in. */

import { confirmed } from "../../chat/views/confirm.js";
import { h, icon, setText } from "../../chat/views/dom.js";
import { Agents } from "./agents.js";
import { Approvals } from "./approvals.js";
import { Health } from "./health.js";
import { Phone } from "./phone.js";
import { Tokens } from "./tokens.js";
import { Turns } from "./turns.js";
import { capital, tick } from "./words.js";

const SECTIONS = { agents: Agents, turns: Turns, approvals: Approvals, health: Health, tokens: Tokens, phone: Phone };
const TICK = 10000;

export class Frame {
  #listening = new AbortController();
  #toast = h("p.toast", { role: "status", hidden: true });
  #toastTimer = 0;
  #asking = new Set();
  /** @type {Set<Element>} buttons whose work is not done: pressed twice it is done once */
  #doing = new Set();
  #overall = h("a.overall", { href: "#/health" }, h("span.lamp", {}), h("span.words", {}, "Connecting …"));

  /**
   * @param {import("../api.js").Api} api
   * @param {import("../live.js").Live} live
   * @param {import("../session.js").Session} session
   * @param {{leave: () => void}} handlers
   */
  constructor(api, live, session, { leave }) {
    this.live = live;
    const context = { api, live, session, toast: (/** @type {string} */ text) => this.toast(text) };
    this.sections = Object.fromEntries(Object.entries(SECTIONS).map(([name, Section]) => [name, new Section(context)]));
    this.links = Object.fromEntries(Object.entries(this.sections).map(([name, { title }]) => [name, link(name, title)]));
    this.main = h("main", { id: "main", tabindex: "-1" });
    this.element = this.#build(session, leave);
    this.#listen();
    this.#route();
  }

  /** @param {import("../session.js").Session} session @param {() => void} leave */
  #build(session, leave) {
    const skip = h("a.skip-link", { href: "#main", onclick: (/** @type {Event} */ event) => this.#skip(event) }, "Skip to the section");
    const leaving = { type: "button", "aria-label": "Sign out", title: "Sign out", onclick: () => this.#leave(leave) };
    return h("div.frame", {},
      skip,
      h("header.top", {}, h("div.brand", {}, icon("mark"), h("span", {}, "Letta dashboard")), h("div.status", { role: "status" }, this.#overall),
        h("div.me", {}, h("span.me-name", {}, session.name), h("button.sign-out", leaving, icon("out")))),
      h("nav.sections", { "aria-label": "Sections" }, ...Object.values(this.links)),
      this.main,
      this.#toast,
    );
  }

  #listen() {
    const { signal } = this.#listening;
    addEventListener("hashchange", () => this.#route(true), { signal });
    this.live.addEventListener("change", (event) => this.#changed(/** @type {CustomEvent<string>} */ (event).detail));
    this.live.addEventListener("online", () => this.#renderOverall());
    this.main.addEventListener("click", (event) => this.#onClick(event));
    const timer = setInterval(tick, TICK);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  /** @param {boolean} [moved] */
  #route(moved = false) {
    const name = /^#\/(\w+)/.exec(location.hash)?.[1] ?? "agents";
    const [open, section] = name in this.sections ? [name, this.sections[name]] : ["agents", this.sections.agents];
    for (const [one, { classList }] of Object.entries(this.links)) classList.toggle("current", one === open);
    for (const [one, element] of Object.entries(this.links)) {
      if (one === open) element.setAttribute("aria-current", "page");
      else element.removeAttribute("aria-current");
    }
    if (section === this.open) return;
    this.open = section;
    this.main.replaceChildren(h("h1", {}, section.title), section.element);
    document.title = `${section.title} · Letta dashboard`;
    section.render();
    section.opened?.();
    if (!moved) return;
    scrollTo(0, 0);
    this.main.focus({ preventScroll: true });
  }

  /** @param {string} what */
  #changed(what) {
    if (what === "health") this.#renderOverall();
    if (what === "approvals") this.#announce();
    this.open.render(what);
    const { approvals, health } = this.live.state;
    badge(this.links.approvals, approvals.length, "waiting");
    badge(this.links.health, health?.checks.filter((one) => one.state === "trouble").length ?? 0, "in trouble");
  }

  #renderOverall() {
    const { health } = this.live.state;
    const [kind, text] = !this.live.online ? ["lost", "Not connected, trying again …"] : overall(health);
    this.#overall.className = `overall ${kind}`;
    setText(this.#overall.querySelector(".words"), text);
    this.#overall.title = text;
  }

  /** Says aloud what asks for an answer. */
  #announce() {
    const { approvals } = this.live.state;
    const fresh = approvals.filter(({ key }) => !this.#asking.has(key));
    this.#asking = new Set(approvals.map(({ key }) => key));
    if (!fresh.length) return;
    const [{ agent_id: agent, tool }] = fresh;
    announce(`${this.live.nameOf(agent)} asks whether it may run ${tool}.`);
  }

  /** @param {Event} event */
  async #onClick(event) {
    const pressed = /** @type {HTMLElement} */ (event.target).closest("[data-do]");
    if (!(pressed instanceof HTMLElement) || this.#doing.has(pressed)) return;
    const act = this.open.actions[pressed.dataset.do ?? ""];
    this.#doing.add(pressed);
    try {
      await act({ ...pressed.dataset });
    } catch (error) {
      this.toast(error.message);
    }
    this.#doing.delete(pressed);
  }

  /** @param {Event} event */
  #skip(event) {
    event.preventDefault();
    this.main.focus();
  }

  /** @param {() => void} leave */
  async #leave(leave) {
    const text = "This browser forgets your token. If you signed in with your account, it ends as well.";
    if (await confirmed({ title: "Sign out?", text, yes: "Sign out" })) leave();
  }

  /** @param {string} text */
  toast(text) {
    this.#toast.textContent = text;
    this.#toast.hidden = false;
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(() => (this.#toast.hidden = true), 6000);
  }

  dispose() {
    this.#listening.abort();
    announce("");
  }
}

/** @param {Record<string, any>|null} health @returns {[string, string]} */
function overall(health) {
  if (!health) return ["lost", "Connecting …"];
  if (health.status === "starting") return ["starting", "Starting: rooms are being set up"];
  const [first, ...more] = health.troubles;
  if (!first) return ["ok", "All is well"];
  return ["trouble", more.length ? `${capital(first)} (and ${more.length} more)` : capital(first)];
}

/** @param {string} name @param {string} title */
function link(name, title) {
  return h("a", { href: `#/${name}` }, icon(name), h("span.label", {}, title), h("span.badge", { hidden: true }));
}

/** @param {HTMLElement} element @param {number} count @param {string} words for those who do not see where it is */
function badge(element, count, words) {
  const shown = /** @type {HTMLElement} */ (element.querySelector(".badge"));
  shown.hidden = !count;
  if (shown.dataset.count === String(count)) return;
  shown.dataset.count = String(count);
  shown.replaceChildren(String(count), h("span.visually-hidden", {}, ` ${words}`));
}

/** @param {string} text */
function announce(text) {
  /** @type {HTMLElement} */ (document.getElementById("announcer")).textContent = text;
}
