/**
 * Shapes shared by the modules; types only.
 *
 * @typedef {object} MatrixEvent an event as the homeserver gives it
 * @property {string} event_id
 * @property {string} type
 * @property {string} sender
 * @property {number} origin_server_ts milliseconds
 * @property {string} [state_key]
 * @property {string} [redacts]
 * @property {Record<string, any>} content
 * @property {Record<string, any>} [unsigned]
 *
 * @typedef {object} Member
 * @property {string} name display name, or the local part of the user id
 * @property {string|null} avatar an mxc:// address
 * @property {boolean} joined whether they are known to be in the room
 *
 * @typedef {object} Reaction
 * @property {string} key the emoji
 * @property {string[]} senders user ids
 * @property {string|null} own event id of our own reaction
 *
 * @typedef {object} Item one line of a conversation, edits and reactions applied
 * @property {string} key stays the same from the local echo to the confirmed event
 * @property {string|null} id event id; null while it is only ours
 * @property {"message"|"redacted"|"encrypted"|"renamed"|"thread"} kind a thread: its newest event
 *   where its root is not at hand
 * @property {"approval"|"trace"|"notice"|null} beside what an agent's notice is beside its reply
 * @property {string} sender
 * @property {number} ts milliseconds
 * @property {Record<string, any>} content
 * @property {string|null} revision event id of the edit shown
 * @property {number} revisedAt milliseconds
 * @property {string|null} replyTo event id
 * @property {string|null} thread event id of the root of the thread it is in
 * @property {{count: number, ts: number}|null} replies the thread below it
 * @property {Reaction[]} reactions
 * @property {"sending"|"sent"|"failed"} status
 * @property {string} problem why it failed
 *
 * @typedef {object} Command what one can tell the bridge
 * @property {string} name
 * @property {string} usage
 * @property {string} help one line of Markdown
 * @property {string[]} aliases
 * @property {boolean} admin whether it is for admins only
 *
 * @typedef {object} Settings the page's `config.json`
 * @property {string} homeserver_url
 * @property {string} bot_user_id
 * @property {Command[]} commands
 *
 * @typedef {object} Session
 * @property {string} homeserver base URL
 * @property {string} userId
 * @property {string} accessToken
 * @property {string} deviceId
 */

export {};
