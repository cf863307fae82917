/** Files chosen for the next message. */

import { sizeText } from "../uploads.js";
import { h, icon } from "./dom.js";

/** @typedef {{file: File, element: HTMLElement, url: string}} Chosen */

const PICTURES = /^image\/(?:png|jpeg|gif|webp|avif)$/;

export class Attachments {
  /** @type {Chosen[]} */
  #chosen = [];
  element = h("ul.attachments", { "aria-label": "Files to be sent", hidden: true });
  button = h("button.attach", { type: "button", "aria-label": "Attach files", title: "Attach files" }, icon("clip"));
  #input = h("input", { type: "file", multiple: true, hidden: true, tabindex: "-1" });
  opener = h("span.opener", {}, this.button, this.#input);

  /**
   * @param {import("../uploads.js").Uploads} uploads
   * @param {{onChange: () => void, onProblem: (text: string) => void}} handlers
   */
  constructor(uploads, { onChange, onProblem }) {
    this.uploads = uploads;
    this.onChange = onChange;
    this.onProblem = onProblem;
    this.button.addEventListener("click", () => this.#input.click());
    this.#input.addEventListener("change", () => {
      const files = [...(this.#input.files ?? [])];
      this.#input.value = "";
      this.add(files);
    });
  }

  get isEmpty() {
    return !this.#chosen.length;
  }

  /** @param {File[]} files */
  async add(files) {
    for (const file of files) {
      const problem = await this.uploads.problemOf(file);
      if (problem) this.onProblem(problem);
      else this.#add(file);
    }
    this.#changed();
  }

  /** @param {File} file */
  #add(file) {
    const url = PICTURES.test(file.type) ? URL.createObjectURL(file) : "";
    const remove = () => this.#remove(chosen);
    const label = `Remove ${file.name}`;
    const element = h("li.attachment", {},
      url ? h("img", { src: url, alt: "" }) : icon("file"),
      h("span.name", {}, file.name),
      h("span.size", {}, sizeText(file.size)),
      h("button.remove", { type: "button", "aria-label": label, title: label, onclick: remove }, icon("close")),
    );
    const chosen = { file, element, url };
    this.#chosen.push(chosen);
  }

  /** @param {Chosen} gone */
  #remove(gone) {
    this.#chosen = this.#chosen.filter((one) => one !== gone);
    URL.revokeObjectURL(gone.url);
    this.button.focus();
    this.#changed();
  }

  #changed() {
    this.element.replaceChildren(...this.#chosen.map(({ element }) => element));
    this.element.hidden = this.isEmpty;
    this.onChange();
  }

  /** Hands the files out and forgets them. @returns {File[]} */
  take() {
    const files = this.#chosen.map(({ file }) => file);
    this.clear();
    return files;
  }

  clear() {
    for (const { url } of this.#chosen) URL.revokeObjectURL(url);
    this.#chosen = [];
    this.#changed();
  }
}
