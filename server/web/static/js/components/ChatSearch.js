// Looking for what was said in past chats: the field, the turns it finds, and those that an answer was given.
import { day, date, number } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { addressOf, go } from "../router.js";
import { seek, seekAgain, snippet, sought } from "../search.js";
import { dialog, drawer } from "../state.js";
import { list } from "../threads.js";
import { Dialog } from "./Dialog.js";
import { ListState } from "./controls.js";

export function SearchField({ value, onInput }) {
  const set = (text) => { onInput(text); seek(text); };
  const onKeyDown = (event) => {
    if (event.key !== "Escape" || !value) return;
    event.stopPropagation();
    event.preventDefault();
    set("");
  };
  return html`<input type="search" class="field chat-filter" placeholder=${t("search.chats")}
    aria-label=${t("search.chats")} value=${value} onInput=${(event) => set(event.target.value)}
    onKeyDown=${onKeyDown} />`;
}

/** `titles`: how many chats have the words in their title. */
export function FoundTurns({ titles }) {
  const { query, state, found: all, error } = sought.value;
  const there = new Set(list.value.items.map((item) => item.id));
  const found = all.filter((turn) => there.has(turn.conversation_id)); // not of a chat that was deleted meanwhile
  const none = state === "ready" && !found.length;
  return html`<section aria-label=${t("search.found")} aria-busy=${state === "loading"}>
    <h2>${t("search.found")}</h2>
    <${ListState} state=${state} error=${error} onRetry=${seekAgain} lines=${3}
      empty=${none && t(titles ? "search.none_in_messages" : "search.none")} />
    ${state === "ready" && html`<p class="unseen" role="status">${t("search.count", { n: number(found.length),
      count: found.length })}</p>`}
    ${state === "ready" && html`<ul class="turns">${found.map((turn) => html`<${Turn} key=${turn.message_id} turn=${turn}
      query=${query} />`)}</ul>`}
  </section>`;
}

function Turn({ turn, query = "" }) {
  const { conversation_id: id, message_id: message, role } = turn;
  const open = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // the browser's own: a new tab
    event.preventDefault();
    drawer.value = false;
    dialog.value = null;
    go(id, { message });
  };
  return html`<li><a class="turn" href=${addressOf(id, message)} onClick=${open}>
    <span class="turn-head"><b>${turn.title}</b><time datetime=${new Date(turn.at * 1000).toISOString()}
      title=${date(turn.at)}>${day(turn.at)}</time></span>
    <span class="turn-text"><span class="turn-role">${t(`role.${role}`)}</span> ${snippet(turn.snippet || turn.text, query)
      .map((piece, index) => (piece.marked ? html`<mark key=${index}>${piece.text}</mark>`
        : html`<span key=${index}>${piece.text}</span>`))}</span>
  </a></li>`;
}

/** The turns of earlier chats that an answer was given. */
export function ChatsDialog({ turns }) {
  return html`<${Dialog} title=${t("quoted.title")}>
    <p class="panel-text">${t("quoted.text")}</p>
    <ul class="turns">${turns.map((turn) => html`<${Turn} key=${turn.message_id} turn=${turn} />`)}</ul>
  </${Dialog}>`;
}
