// Below the list of memories: where memory is used, taking it along, erasing it.
import { useState } from "preact/hooks";
import { loadDomains } from "../actions.js";
import { number } from "../format.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { eraseMemories, memories } from "../memories.js";
import { dialog, domains } from "../state.js";
import { ListState } from "./controls.js";

/** Which domains use memory. A domain is a file, so it is changed there. */
export function MemoryDomains() {
  const [open, setOpen] = useState(false);
  const { state, items, error } = domains.value;
  const using = items.filter((item) => item.memory).length;
  return html`<details class="section" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${t("memory.domains")}<span>${t("memory.domains_count", { n: using, of: items.length })}</span></summary>
    ${open && html`
      <${ListState} state=${state} error=${error} onRetry=${loadDomains}
        empty=${state === "ready" && !items.length && t("domains.empty")} />
      <ul class="memory-domains">${items.map((item) => html`<li key=${item.name}>
        <span>${item.title}</span><code>prompts/${item.name}.md</code>
        <span class=${cx("state", item.memory && "indexed")}>${t(item.memory ? "memory.used_here"
          : "memory.not_used_here")}</span></li>`)}</ul>
      <p class="hint">${t("memory.domains_text")} <code>memory: true</code></p>`}
  </details>`;
}

export function MemoryData() {
  const { state, total } = memories.value;
  if (state !== "ready") return null;
  const erase = () => (dialog.value = {
    kind: "confirm", title: t("memory.erase_title", { n: number(total), count: total }),
    text: t("memory.erase_text"), action: t("memory.erase_action", { n: number(total), count: total }), danger: true,
    run: eraseMemories,
  });
  return html`<div class="memory-data">
    <a class="button small" href="/api/memories/export" download="memories.json"><${Icon} name="download"
      size=${16} />${t("memory.export")}</a>
    <button type="button" class="button small danger-text" onClick=${erase}><${Icon} name="trash"
      size=${16} />${t("memory.erase")}</button>
  </div>`;
}
