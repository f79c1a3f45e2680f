// Domains: what each one is, and which prompt files cannot be used and why.
import { useEffect } from "preact/hooks";
import { chooseDomain, loadDomains } from "../actions.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { domains, isNarrow, newChatDomain, panel } from "../state.js";
import { currentThread } from "../threads.js";
import { ListState } from "./controls.js";
import { DomainFeatures } from "./DomainPicker.js";

export function DomainPanel() {
  useEffect(() => { loadDomains(); }, []);
  const { state, items, problems, error, default: defaultName } = domains.value;
  const chosen = currentThread.value ? currentThread.value.domain.value : newChatDomain.value;
  const selectDomain = (name) => {
    chooseDomain(name);
    if (isNarrow.value) panel.value = null;
  };
  return html`
    <${ListState} state=${state} error=${error} onRetry=${loadDomains}
      empty=${state === "ready" && items.length === 0 && t("domains.empty")} />
    ${problems.length > 0 && html`<section class="problems" aria-label=${t("domains.problems", { n: problems.length })}>
      <h3><${Icon} name="alert" size=${16} />${t("domains.problems", { n: problems.length })}</h3>
      <ul>${problems.map((problem) => html`<li
        key=${problem.file}><code>${nameOf(problem.file)}${problem.line > 0 && `:${problem.line}`}</code><p>
        ${problem.reason}</p></li>`)}</ul>
      <p class="hint">${t("domains.problems_text")}</p></section>`}
    <ul class="domain-list">${items.map((item) => html`<li key=${item.name} class="domain">
      <div class="domain-head"><strong>${item.title}</strong><code>${item.name}</code>
        ${item.name === defaultName && html`<span class="tag">${t("domains.default")}</span>`}</div>
      <p>${item.description}</p>
      <${DomainFeatures} domain=${item} />
      ${item.examples > 0 && html`<span class="hint">${t("domains.examples", { n: item.examples })}</span>`}
      <button type="button" class="button small" disabled=${chosen === item.name}
        onClick=${() => selectDomain(item.name)}
        aria-label=${t("domains.use_this", { title: item.title })}>
        ${t(chosen === item.name ? "domains.in_use" : "domains.use")}</button>
    </li>`)}</ul>`;
}

const nameOf = (path) => path.split(/[\\/]/).slice(-2).join("/");
