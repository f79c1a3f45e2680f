// Below the list of memories: the domains that use memory, export, erasing.
import { useState } from "preact/hooks";
import { loadDomains } from "../actions.js";
import { number } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { eraseMemories, memories, setMemoryInDomain } from "../memories.js";
import { dialog, domains } from "../state.js";
import { ListState } from "./controls.js";

/** Which domains use memory: those whose file says so, as far as the user has not switched them off. */
export function MemoryDomains() {
  const [open, setOpen] = useState(false);
  const { state, items, error } = domains.value;
  const { domainsOff } = memories.value;
  const usingCount = items.filter((item) => item.memory && !domainsOff.includes(item.name)).length;
  return html`<details class="section" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${t("memory.domains")}<span>${t("memory.domains_count",
      { n: usingCount, of: items.length })}</span></summary>
    ${open && html`
      <${ListState} state=${state} error=${error} onRetry=${loadDomains}
        empty=${state === "ready" && !items.length && t("domains.empty")} />
      <ul class="memory-domains">${items.map((item) => html`<li key=${item.name}>
        <span>${item.title}</span><code>prompts/${item.name}.md</code>
        ${item.memory
          ? html`<${DomainToggle} name=${item.name} title=${item.title} enabled=${!domainsOff.includes(item.name)} />`
          : html`<span class="state">${t("memory.not_used_here")}</span>`}</li>`)}</ul>
      <p class="hint">${t("memory.domains_text")} <code>memory: true</code></p>`}
  </details>`;
}

function DomainToggle({ name, title, enabled }) {
  const [busy, setBusy] = useState(false);
  const change = async () => {
    setBusy(true);
    await setMemoryInDomain(name, !enabled);
    setBusy(false);
  };
  return html`<label class="check use"><input type="checkbox" checked=${enabled} disabled=${busy}
    aria-label=${t("memory.use_in", { title })} onChange=${change} /><span>${t(enabled ? "memory.used_here"
    : "memory.switched_off")}</span></label>`;
}

export function MemoryData() {
  const { state, total } = memories.value;
  if (state !== "ready") return null;
  const erase = () => (dialog.value = {
    kind: "confirm", title: t("memory.erase_title", { n: number(total), count: total }),
    text: t("memory.erase_text"), action: t("memory.erase_action", { n: number(total), count: total }), danger: true,
    onConfirm: eraseMemories,
  });
  return html`<div class="memory-data">
    <a class="button small" href="/api/memories/export" download="memories.json"><${Icon} name="download"
      size=${16} />${t("memory.export")}</a>
    <button type="button" class="button small danger-text" onClick=${erase}><${Icon} name="trash"
      size=${16} />${t("memory.erase")}</button>
  </div>`;
}
