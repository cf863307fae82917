/** Everything that lives as long as somebody is signed in. */

import { Api } from "./api.js";
import { Corrections } from "./corrections.js";
import { Media } from "./media.js";
import { Outbox } from "./outbox.js";
import { Reactions } from "./reactions.js";
import { Receipts } from "./receipts.js";
import { RoomStore } from "./store/rooms.js";
import { SyncLoop } from "./sync.js";
import { Uploads } from "./uploads.js";

/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").Settings} Settings */

export class Account {
  /** @type {Set<string>} invitations accepted without asking, once each */
  #trusted = new Set();

  /**
   * @param {Session} session
   * @param {Settings} settings
   * @param {{onStatus: (online: boolean) => void, onEnded: (reason: string) => void}} handlers
   */
  constructor(session, settings, { onStatus, onEnded }) {
    this.session = session;
    this.commands = settings.commands;
    this.onEnded = onEnded;
    this.api = new Api(session.homeserver, session.accessToken);
    this.api.onTokenRefused = () => this.#end("You were signed out, perhaps from another device. Sign in again.");
    this.rooms = new RoomStore(session.userId, settings.bot_user_id);
    this.media = new Media(this.api);
    this.uploads = new Uploads(this.api);
    this.outbox = new Outbox(this.api, this.rooms, this.uploads);
    this.corrections = new Corrections(this.api, this.rooms);
    this.reactions = new Reactions(this.api, this.rooms);
    this.receipts = new Receipts(this.api, this.rooms);
    this.loop = new SyncLoop(this.api, this.rooms, onStatus);
    this.rooms.addEventListener("change", () => this.#acceptTrusted());
  }

  start() {
    this.loop.run().catch((error) => this.#end(`The homeserver refused to go on: ${error.message}`));
  }

  stop() {
    this.loop.stop();
    this.media.forget();
  }

  /** @param {string} reason */
  #end(reason) {
    this.stop();
    this.onEnded(reason);
  }

  #acceptTrusted() {
    for (const { id } of this.rooms.trustedInvites()) {
      if (this.#trusted.has(id)) continue;
      this.#trusted.add(id);
      // If it fails, the list still shows the invitation with its button.
      this.accept(id).catch(() => {});
    }
  }

  /** @param {string} roomId */
  accept(roomId) {
    return this.api.join(roomId);
  }

  /** @param {string} roomId */
  async decline(roomId) {
    await this.api.leave(roomId);
    this.rooms.forget(roomId);
  }

  async signOut() {
    this.stop();
    await this.api.logout().catch(() => {});
  }
}
