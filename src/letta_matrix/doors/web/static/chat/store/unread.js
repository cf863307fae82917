/** How much of a room is unread: its main timeline and each thread, as the homeserver counts them. */

export class Unread {
  #main = 0;
  /** @type {Map<string, number>} root -> count */
  #threads = new Map();
  /** @type {Map<string, string>} root -> the event our receipt for the thread points to */
  #read = new Map();

  /** @param {import("./timeline.js").Timeline} timeline */
  constructor(timeline) {
    this.timeline = timeline;
  }

  /** @param {any} data a joined room of a sync answer */
  apply({ unread_notifications: counts, unread_thread_notifications: threads }) {
    if (!counts && !threads) return;
    this.#main = counts?.notification_count ?? this.#main;
    this.#threads = new Map(
      Object.entries(threads ?? {}).map(([root, count]) => [root, count.notification_count ?? 0]),
    );
  }

  /** @param {string} root @param {string} eventId */
  threadRead(root, eventId) {
    this.#read.set(root, eventId);
  }

  /** Lets the next look at the thread send the receipt. @param {string} root @param {string} eventId */
  threadUnread(root, eventId) {
    if (this.#read.get(root) === eventId) this.#read.delete(root);
  }

  /** Whether our receipt points to the newest message of a thread. @param {string} root */
  isThreadRead(root) {
    const last = this.timeline.threads.events(root).at(-1);
    return last !== undefined && this.#read.get(root) === last.event_id;
  }

  clear() {
    this.#main = 0;
    this.#threads.clear();
  }

  get total() {
    const unseen = [...this.#threads].filter(([root]) => !this.isThreadRead(root));
    return unseen.reduce((sum, [, count]) => sum + count, this.#main);
  }
}
