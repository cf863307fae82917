/** Many like buttons as one tab stop; arrow keys go from one to the next. */

export class Roving {
  /** @param {HTMLElement} container @param {string} selector of the buttons, whose `tabindex` is -1 */
  constructor(container, selector) {
    this.container = container;
    this.selector = selector;
    container.addEventListener("focusin", (event) => {
      const button = event.target instanceof HTMLElement && event.target.closest(selector);
      if (button) this.#stopAt(button);
    });
    container.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** @returns {HTMLElement[]} */
  #buttons() {
    return [...this.container.querySelectorAll(`${this.selector}:not([hidden])`)].filter(
      (button) => button instanceof HTMLElement,
    );
  }

  /** Makes the newest button the tab stop, unless one of them has the focus. */
  update() {
    const focused = document.activeElement?.closest(this.selector);
    const stop = focused && this.container.contains(focused) ? focused : this.#buttons().at(-1);
    if (stop) this.#stopAt(stop);
  }

  /** @param {Element} button */
  #stopAt(button) {
    for (const other of this.container.querySelectorAll(`${this.selector}[tabindex="0"]`)) {
      if (other !== button) other.setAttribute("tabindex", "-1");
    }
    button.setAttribute("tabindex", "0");
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const buttons = this.#buttons();
    const at = buttons.findIndex((button) => button === event.target);
    if (at < 0 || event.altKey) return;
    const next = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    buttons[next]?.focus();
  }
}
