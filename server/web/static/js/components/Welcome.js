// An empty chat: what can be asked here, as cards of the domains.
import { chooseDomain } from "../actions.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Logo } from "../icons.js";
import { domains, newChatDomain, panel, session } from "../state.js";
import { currentThread } from "../threads.js";
import { ListState } from "./controls.js";
import { DomainFeatures } from "./DomainPicker.js";

export function Welcome() {
  const { state, items, error } = domains.value;
  const chosen = currentThread.value ? currentThread.value.domain.value : newChatDomain.value;
  const toggleDomain = (name) => {
    chooseDomain(chosen === name ? null : name);
    document.querySelector(".composer textarea")?.focus();
  };
  return html`<section class="welcome">
    <${Logo} size=${40} />
    <h2>${t("welcome.title")}</h2>
    <p>${t("welcome.text")}</p>
    <${ListState} state=${state} error=${error} lines=${3} />
    <div class="cards">${items.map((item) => html`<button type="button" key=${item.name}
      class=${cx("card", chosen === item.name && "on")}
      aria-pressed=${chosen === item.name} onClick=${() => toggleDomain(item.name)}>
      <span class="card-title">${item.title}</span>
      <span class="card-text">${item.description}</span>
      <${DomainFeatures} domain=${item} />
    </button>`)}</div>
    <p class="welcome-foot"><button type="button" class="link"
      onClick=${() => (panel.value = "knowledge")}>${t("welcome.knowledge")}</button>
      ${session.value?.model && html`<span>
        ${t("welcome.model", { name: shortName(session.value.model.id) })}</span>`}</p>
  </section>`;
}

/** The last part of a hub id or a folder. */
export const shortName = (id) => String(id).split(/[\\/]/).filter(Boolean).at(-1) ?? "";
