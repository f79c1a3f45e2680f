// The side sheet (over the chat on a phone) that shows one of the panels.
import { useLayoutEffect, useRef } from "preact/hooks";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { panel } from "../state.js";
import { AccountPanel } from "./AccountPanel.js";
import { AdapterPanel } from "./AdapterPanel.js";
import { IconButton } from "./controls.js";
import { DomainPanel } from "./DomainPanel.js";
import { KnowledgePanel } from "./KnowledgePanel.js";
import { MemoryPanel } from "./MemoryPanel.js";
import { PeoplePanel } from "./PeoplePanel.js";

const PANELS = {
  knowledge: KnowledgePanel, memory: MemoryPanel, adapters: AdapterPanel, domains: DomainPanel,
  account: AccountPanel, people: PeoplePanel,
};

export function PanelView() {
  const name = panel.value;
  return name && html`<${Sheet} key=${name} name=${name} />`;
}

function Sheet({ name }) {
  const heading = useRef(null);
  useLayoutEffect(() => {
    const previousFocus = document.activeElement;
    heading.current.focus();
    return () => previousFocus?.isConnected && previousFocus.focus();
  }, []);
  return html`<aside class="panel" aria-labelledby="panel-title">
    <header class="panel-head">
      <h2 id="panel-title" ref=${heading} tabindex="-1">${t(`panel.${name}`)}</h2>
      <${IconButton} icon="close" label=${t("action.close")} onClick=${() => (panel.value = null)} />
    </header>
    <div class="panel-body">
      <p class="panel-text">${t(`panel.${name}_text`)}</p>
      <${PANELS[name]} />
    </div>
  </aside>`;
}
