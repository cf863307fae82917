/** What a person sees where nothing was said yet. */

import { avatar } from "./avatar.js";
import { h } from "./dom.js";

const OPENINGS = ["hello", "write 200 words", "use Bash: date"];

/**
 * @param {import("../media.js").Media} media
 * @param {import("../store/room.js").Room} room
 * @param {(text: string) => void} onChoice
 */
export function emptyState(media, room, onChoice) {
  const face = { id: room.agentId ?? room.id, name: room.name, mxc: room.avatar, large: true };
  const choices = OPENINGS.map((text) => {
    return h("button.opening", { type: "button", onclick: () => onChoice(text) }, text);
  });
  // Elsewhere an agent answers only who names it.
  const hint = room.answersAll ? "Write below, or begin with one of these:" : "Type @ to name an agent: it answers then.";
  return h("div.welcome", {},
    avatar(media, face),
    h("h2", {}, `Say hello ${room.answersAll ? "to" : "in"} ${room.name}`),
    h("p", {}, hint),
    room.answersAll && h("div.openings", {}, ...choices),
  );
}
