// The sidebar: new chat, the user's chats by date, the four levers, settings.
import { useRef, useState } from "preact/hooks";
import { newChat, rename } from "../actions.js";
import { byDay } from "../format.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon, Mark } from "../icons.js";
import { addressOf, go, route } from "../router.js";
import { dialog, domains, drawer, narrow, panel, session } from "../state.js";
import { memories } from "../memories.js";
import { list, loadList } from "../threads.js";
import { FoundTurns, SearchField } from "./ChatSearch.js";
import { IconButton, InlineEdit, ListState, MenuItem, Popover } from "./controls.js";

export function Sidebar() {
  const hidden = narrow.value && !drawer.value;
  return html`<nav class=${cx("sidebar", drawer.value && "open")} aria-label=${t("nav.label")}
    inert=${hidden || (narrow.value && panel.value !== null)}>
    <div class="sidebar-top">
      <a class="brand" href="#/" onClick=${newChat}><${Mark} /><span>Tailor</span></a>
      ${narrow.value && html`<${IconButton} icon="close" label=${t("nav.close")}
        onClick=${() => (drawer.value = false)} />`}
    </div>
    <button type="button" class="button new-chat" onClick=${newChat}><${Icon} name="plus" />${t("nav.new")}</button>
    <${Chats} />
    <${Levers} />
  </nav>`;
}

function Chats() {
  const [filter, setFilter] = useState("");
  const box = useRef(null);
  const { state, items, error } = list.value;
  const wanted = filter.trim().toLowerCase();
  const shown = wanted ? items.filter((item) => item.title.toLowerCase().includes(wanted)) : items;
  return html`<div class="chats" ref=${box} aria-busy=${state === "loading"}
    onKeyDown=${(event) => walk(event, box.current)}>
    ${(items.length > 0 || wanted) && html`<${SearchField} value=${filter} onInput=${setFilter} />`}
    <${ListState} state=${state} error=${error} onRetry=${loadList} lines=${6}
      empty=${state === "ready" && shown.length === 0 && !wanted && t("nav.empty")} />
    ${byDay(shown, (item) => item.updated_at).map((group) => html`<section key=${group.label} aria-label=${group.label}>
      <h2>${group.label}</h2>
      <ul>${group.items.map((item) => html`<${ChatRow} key=${item.id} item=${item} />`)}</ul>
    </section>`)}
    ${wanted && html`<${FoundTurns} titles=${shown.length} />`}
  </div>`;
}

/** Up and down go through the search field and the chats below it. */
function walk(event, box) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.isComposing || event.target.closest("[role=menu]")) return;
  const all = [...box.querySelectorAll("input[type=search], a[href]")];
  const next = all.indexOf(document.activeElement) + step;
  if (!all.includes(document.activeElement) || !all[next]) return;
  event.preventDefault();
  all[next].focus();
}

function ChatRow({ item }) {
  const [renaming, setRenaming] = useState(false);
  const active = route.value === item.id;
  if (renaming) {
    return html`<li class="chat-row"><${InlineEdit} value=${item.title} label=${t("chat.rename")}
      onSave=${(title) => { setRenaming(false); rename(item.id, title); }}
        onCancel=${() => setRenaming(false)} /></li>`;
  }
  const open = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // the browser's own: a new tab
    event.preventDefault();
    drawer.value = false;
    go(item.id);
  };
  return html`<li class=${cx("chat-row", active && "active")}>
    <a href=${addressOf(item.id)} aria-current=${active ? "page" : undefined} title=${item.title} onClick=${open}
      onDblClick=${() => setRenaming(true)}>${item.temporary && html`<span class="temporary-mark"
        title=${t("temporary.chat")}><${Icon} name="temporary" size=${14} /><span
        class="unseen">${t("temporary.chat")}: </span></span>`}${item.title}</a>
    <${Popover} class="icon-button row-menu" label=${t("chat.menu", { title: item.title })} button=${html`<${Icon}
      name="more" />`}>
      ${(close) => html`
        <${MenuItem} icon="edit" onClick=${() => { close(); setRenaming(true); }}>${t("chat.rename")}</${MenuItem}>
        <${MenuItem} icon="trash" danger
          onClick=${() => { close(); dialog.value = { kind: "delete-chat", item }; }}>${t("chat.delete")}</${MenuItem}>`}
    </${Popover}>
  </li>`;
}

const LEVERS = [
  ["domains", "route"],
  ["knowledge", "book"],
  ["memory", "memory"],
  ["adapters", "layers"],
];

function Levers() {
  const open = (name) => {
    drawer.value = false;
    panel.value = panel.value === name ? null : name;
  };
  const problems = domains.value.problems.length;
  const user = session.value?.user;
  return html`<div class="levers">
    <h2>${t("nav.levers")}</h2>
    <ul>
      ${LEVERS.map(([name, icon]) => html`<li key=${name}>
        <button type="button" class=${cx("lever", panel.value === name && "active")}
          aria-expanded=${panel.value === name}
          onClick=${() => open(name)}>
          <${Icon} name=${icon} /><span>${t(`panel.${name}`)}</span>
          ${name === "domains" && problems > 0 &&
          html`<span class="badge warn" title=${t("domains.problems", { n: problems })}>${problems}</span>`}
          ${name === "memory" && memories.value.paused && html`<span class="badge warn">${t("memory.paused")}</span>`}
        </button></li>`)}
    </ul>
    <button type="button" class="lever" onClick=${() => (dialog.value = { kind: "settings" })}>
      <${Icon} name="gear" /><span>${t("settings.title")}</span>
      ${session.value?.login_needed && user && html`<span class="lever-note">${user.name}</span>`}
    </button>
  </div>`;
}
