// Which domain answers: "Auto", or one of them with what it does and what it uses.
import { chooseDomain } from "../actions.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { domains, newChatDomain } from "../state.js";
import { Popover } from "./controls.js";

export function DomainPicker({ thread }) {
  const chosen = thread ? thread.domain.value : newChatDomain.value;
  const items = domains.value.items;
  const title = chosen === null ? t("domain.auto") : items.find((item) => item.name === chosen)?.title ?? chosen;
  const button = html`<${Icon} name=${chosen === null ? "spark" : "route"} size=${16} /><span>${title}</span>
    <${Icon} name="down" size=${14} />`;
  return html`<${Popover} class="pill" popupClass="domains" button=${button} label=${t("domain.pick", { title })}>
    ${(close) => html`
      <${DomainOption} selected=${chosen === null} title=${t("domain.auto")} text=${t("domain.auto_long")}
        onClick=${() => { close(); chooseDomain(null); }} />
      ${items.map((item) => html`<${DomainOption} key=${item.name} selected=${chosen === item.name} title=${item.title}
        text=${item.description}
        domain=${item} onClick=${() => { close(); chooseDomain(item.name); }} />`)}
      ${domains.value.state === "error" && html`<p class="hint">${domains.value.error}</p>`}`}
  </${Popover}>`;
}

function DomainOption({ selected, title, text, domain, onClick }) {
  return html`<button type="button" role="menuitemradio" aria-checked=${selected}
    class=${cx("domain-option", selected && "on")}
    onClick=${onClick}>
    <span class="domain-name">${title}${selected && html`<${Icon} name="check" size=${16} />`}</span>
    ${text && html`<span class="domain-text">${text}</span>`}
    ${domain && html`<${DomainFeatures} domain=${domain} />`}
  </button>`;
}

/** What a domain uses (knowledge, memory, adapter, schema, reasoning), as small tags. */
export function DomainFeatures({ domain }) {
  const features = [];
  if (domain.knowledge.length) features.push(["book", domain.knowledge.join(", "), t("panel.knowledge")]);
  if (domain.memory) features.push(["memory", t("panel.memory"), t("panel.memory")]);
  if (domain.adapter) features.push(["layers", domain.adapter, t("panel.adapters")]);
  if (domain.output) features.push(["check", t("domain.schema"), t("domain.schema")]);
  if (domain.reasoning) features.push(["spark", t("domain.reasoning"), t("domain.reasoning")]);
  if (!features.length) return null;
  return html`<span class="marks">${features.map(([icon, text, kind]) => html`<span key=${kind} title=${kind}>
    <${Icon} name=${icon} size=${13} />${text}</span>`)}</span>`;
}
