// The sidebar: new chat, the user's chats by date, the four levers, settings.
import { useState } from "preact/hooks";
import { newChat, remove, rename } from "../actions.js";
import { byDay } from "../format.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon, Mark } from "../icons.js";
import { addressOf, go, route } from "../router.js";
import { dialog, domains, drawer, narrow, panel, session } from "../state.js";
import { list, loadList } from "../threads.js";
import { IconButton, InlineEdit, ListState, MenuItem, Popover } from "./controls.js";

const FILTER_FROM = 12; // chats from which a filter helps

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
  const { state, items, error } = list.value;
  const wanted = filter.trim().toLowerCase();
  const shown = wanted ? items.filter((item) => item.title.toLowerCase().includes(wanted)) : items;
  return html`<div class="chats" aria-busy=${state === "loading"}>
    ${items.length >= FILTER_FROM &&
    html`<input type="search" class="field chat-filter" placeholder=${t("nav.filter")} aria-label=${t("nav.filter")}
      value=${filter} onInput=${(event) => setFilter(event.target.value)} />`}
    <${ListState} state=${state} error=${error} onRetry=${loadList} lines=${6}
      empty=${state === "ready" && shown.length === 0 && t(wanted ? "nav.none_match" : "nav.empty")} />
    ${byDay(shown, (item) => item.updated_at).map((group) => html`<section key=${group.label} aria-label=${group.label}>
      <h2>${group.label}</h2>
      <ul>${group.items.map((item) => html`<${ChatRow} key=${item.id} item=${item} />`)}</ul>
    </section>`)}
  </div>`;
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
      onDblClick=${() => setRenaming(true)}>${item.title}</a>
    <${Popover} class="icon-button row-menu" label=${t("chat.menu", { title: item.title })} button=${html`<${Icon}
      name="more" />`}>
      ${(close) => html`
        <${MenuItem} icon="edit" onClick=${() => { close(); setRenaming(true); }}>${t("chat.rename")}</${MenuItem}>
        <${MenuItem} icon="trash" danger
          onClick=${() => { close(); confirmRemove(item); }}>${t("chat.delete")}</${MenuItem}>`}
    </${Popover}>
  </li>`;
}

function confirmRemove(item) {
  dialog.value = {
    kind: "confirm", title: t("chat.delete_title"), text: t("chat.delete_text", { title: item.title }),
    action: t("chat.delete"), danger: true, run: () => remove(item.id),
  };
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
        </button></li>`)}
    </ul>
    <button type="button" class="lever" onClick=${() => (dialog.value = { kind: "settings" })}>
      <${Icon} name="gear" /><span>${t("settings.title")}</span>
      ${session.value?.login_needed && user && html`<span class="lever-note">${user.name}</span>`}
    </button>
  </div>`;
}
