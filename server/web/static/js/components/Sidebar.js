// The sidebar: new chat, the user's chats by date, buttons of the four panels, settings.
import { useRef, useState } from "preact/hooks";
import { newChat, renameChat } from "../actions.js";
import { groupByDay } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon, Logo } from "../icons.js";
import { chatUrl, navigate, openChatId } from "../router.js";
import { dialog, domains, drawerOpen, isNarrow, may, panel, session } from "../state.js";
import { memories } from "../memories.js";
import { chatList, loadChatList } from "../threads.js";
import { ChatSearchResults, SearchField } from "./ChatSearch.js";
import { IconButton, InlineEdit, ListState, MenuItem, Popover } from "./controls.js";

export function Sidebar() {
  const hidden = isNarrow.value && !drawerOpen.value;
  return html`<nav class=${cx("sidebar", drawerOpen.value && "open")} aria-label=${t("nav.label")}
    inert=${hidden || (isNarrow.value && panel.value !== null)}>
    <div class="sidebar-top">
      <a class="brand" href="#/" onClick=${newChat}><${Logo} /><span>Tailor</span></a>
      ${isNarrow.value && html`<${IconButton} icon="close" label=${t("nav.close")}
        onClick=${() => (drawerOpen.value = false)} />`}
    </div>
    <button type="button" class="button new-chat" onClick=${newChat}><${Icon} name="plus" />${t("nav.new")}</button>
    <${ChatList} />
    <${PanelButtons} />
  </nav>`;
}

function ChatList() {
  const [filter, setFilter] = useState("");
  const container = useRef(null);
  const { state, items, error } = chatList.value;
  const query = filter.trim().toLowerCase();
  const shown = query ? items.filter((item) => item.title.toLowerCase().includes(query)) : items;
  return html`<div class="chats" ref=${container} aria-busy=${state === "loading"}
    onKeyDown=${(event) => moveFocus(event, container.current)}>
    ${(items.length > 0 || query) && html`<${SearchField} value=${filter} onInput=${setFilter} />`}
    <${ListState} state=${state} error=${error} onRetry=${loadChatList} lines=${6}
      empty=${state === "ready" && shown.length === 0 && !query && t("nav.empty")} />
    ${groupByDay(shown, (item) => item.updated_at).map((group) => html`<section key=${group.label}
      aria-label=${group.label}>
      <h2>${group.label}</h2>
      <ul>${group.items.map((item) => html`<${ChatRow} key=${item.id} item=${item} />`)}</ul>
    </section>`)}
    ${query && html`<${ChatSearchResults} titleMatches=${shown.length} />`}
  </div>`;
}

/** Up and down go through the search field and the chats below it. */
function moveFocus(event, container) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.isComposing || event.target.closest("[role=menu]")) return;
  const focusable = [...container.querySelectorAll("input[type=search], a[href]")];
  const next = focusable.indexOf(document.activeElement) + step;
  if (!focusable.includes(document.activeElement) || !focusable[next]) return;
  event.preventDefault();
  focusable[next].focus();
}

function ChatRow({ item }) {
  const [renaming, setRenaming] = useState(false);
  const active = openChatId.value === item.id;
  const title = item.title || t("thread.new"); // nothing said yet, or what it was made of is deleted
  if (renaming) {
    return html`<li class="chat-row"><${InlineEdit} value=${item.title} label=${t("chat.rename")}
      onSave=${(title) => { setRenaming(false); renameChat(item.id, title); }}
        onCancel=${() => setRenaming(false)} /></li>`;
  }
  const open = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // the browser's own: a new tab
    event.preventDefault();
    drawerOpen.value = false;
    navigate(item.id);
  };
  return html`<li class=${cx("chat-row", active && "active")}>
    <a href=${chatUrl(item.id)} aria-current=${active ? "page" : undefined} title=${title} onClick=${open}
      onDblClick=${() => setRenaming(true)}>${item.temporary && html`<span class="temporary-mark"
        title=${t("temporary.chat")}><${Icon} name="temporary" size=${14} /><span
        class="unseen">${t("temporary.chat")}: </span></span>`}${title}</a>
    <${Popover} class="icon-button row-menu" label=${t("chat.menu", { title })} button=${html`<${Icon}
      name="more" />`}>
      ${(close) => html`
        <${MenuItem} icon="edit" onClick=${() => { close(); setRenaming(true); }}>${t("chat.rename")}</${MenuItem}>
        <${MenuItem} icon="trash" danger
          onClick=${() => { close(); dialog.value = { kind: "delete-chat", item }; }}>${t("chat.delete")}</${MenuItem}>`}
    </${Popover}>
  </li>`;
}

const PANELS = [
  ["domains", "route"],
  ["knowledge", "book"],
  ["memory", "memory"],
  ["adapters", "layers"],
];

const ACCOUNT_PANELS = [
  ["people", "people", "users:manage"],
  ["account", "user"],
];

function PanelButtons() {
  const togglePanel = (name) => {
    drawerOpen.value = false;
    panel.value = panel.value === name ? null : name;
  };
  const problems = domains.value.problems.length;
  const user = session.value?.user;
  return html`<div class="levers">
    <h2>${t("nav.levers")}</h2>
    <ul>
      ${PANELS.map(([name, icon]) => html`<li key=${name}>
        <button type="button" class=${cx("lever", panel.value === name && "active")}
          aria-expanded=${panel.value === name}
          onClick=${() => togglePanel(name)}>
          <${Icon} name=${icon} /><span>${t(`panel.${name}`)}</span>
          ${name === "domains" && problems > 0 &&
          html`<span class="badge warn" title=${t("domains.problems", { n: problems })}>${problems}</span>`}
          ${name === "memory" && memories.value.paused && html`<span class="badge warn">${t("memory.paused")}</span>`}
        </button></li>`)}
    </ul>
    <button type="button" class="lever" onClick=${() => (dialog.value = { kind: "settings" })}>
      <${Icon} name="gear" /><span>${t("settings.title")}</span>
    </button>
    ${session.value?.login_needed && user && ACCOUNT_PANELS.filter(([, , permission]) => !permission || may(permission))
      .map(([name, icon]) => html`<button key=${name} type="button" class=${cx("lever", panel.value === name && "active")}
        aria-expanded=${panel.value === name} onClick=${() => togglePanel(name)}>
        <${Icon} name=${icon} /><span>${t(`panel.${name}`)}</span>
        ${name === "account" && html`<span class="lever-note">${user.name}</span>`}
      </button>`)}
  </div>`;
}
