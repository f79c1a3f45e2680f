// Searching past chats: the field, the matching turns; and the dialog of turns quoted in an answer's prompt.
import { date, day, number } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { chatUrl, navigate } from "../router.js";
import { chatSearch, retryChatSearch, searchChats, snippet } from "../search.js";
import { dialog, drawerOpen } from "../state.js";
import { chatList } from "../threads.js";
import { Dialog } from "./Dialog.js";
import { ListState } from "./controls.js";

export function SearchField({ value, onInput }) {
  const set = (text) => { onInput(text); searchChats(text); };
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
export function ChatSearchResults({ titleMatches }) {
  const { query, state, results, error } = chatSearch.value;
  const existingIds = new Set(chatList.value.items.map((item) => item.id));
  const shown = results.filter((turn) => existingIds.has(turn.conversation_id)); // without chats deleted meanwhile
  const none = state === "ready" && !shown.length;
  return html`<section aria-label=${t("search.found")} aria-busy=${state === "loading"}>
    <h2>${t("search.found")}</h2>
    <${ListState} state=${state} error=${error} onRetry=${retryChatSearch} lines=${3}
      empty=${none && t(titleMatches ? "search.none_in_messages" : "search.none")} />
    ${state === "ready" && html`<p class="unseen" role="status">${t("search.count", { n: number(shown.length),
      count: shown.length })}</p>`}
    ${state === "ready" && html`<ul class="turns">${shown.map((turn) => html`<${TurnLink}
      key=${turn.message_id} turn=${turn}
      query=${query} />`)}</ul>`}
  </section>`;
}

function TurnLink({ turn, query = "" }) {
  const { conversation_id: id, message_id: message, role } = turn;
  const open = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // the browser's own: a new tab
    event.preventDefault();
    drawerOpen.value = false;
    dialog.value = null;
    navigate(id, { message });
  };
  return html`<li><a class="turn" href=${chatUrl(id, message)} onClick=${open}>
    <span class="turn-head"><b>${turn.title || t("thread.new")}</b><time datetime=${new Date(turn.at * 1000).toISOString()}
      title=${date(turn.at)}>${day(turn.at)}</time></span>
    <span class="turn-text"><span class="turn-role">${t(`role.${role}`)}</span> ${snippet(turn.snippet || turn.text, query)
      .map((part, index) => (part.marked ? html`<mark key=${index}>${part.text}</mark>`
        : html`<span key=${index}>${part.text}</span>`))}</span>
  </a></li>`;
}

/** The turns of earlier chats that were in an answer's prompt. */
export function QuotedTurnsDialog({ turns }) {
  return html`<${Dialog} title=${t("quoted.title")}>
    <p class="panel-text">${t("quoted.text")}</p>
    <ul class="turns">${turns.map((turn) => html`<${TurnLink} key=${turn.message_id} turn=${turn} />`)}</ul>
  </${Dialog}>`;
}
