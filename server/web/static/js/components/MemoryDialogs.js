// The memories an answer was given and why; and which of two texts stays when both were written.
import { useState } from "preact/hooks";
import { day } from "../format.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { addMemory, deleteMemory, editMemory, known } from "../memories.js";
import { dialog } from "../state.js";
import { spanOf } from "../times.js";
import { Dialog } from "./Dialog.js";
import { EditMemory } from "./EditMemory.js";
import { Source } from "./MemoryRow.js";

const WHYS = ["profile", "words", "meaning", "asked"];

export function MemoriesDialog({ memories: used }) {
  return html`<${Dialog} title=${t("used.title", { n: used.length })}>
    <p class="panel-text">${t("used.text")}</p>
    <ul class="memories">${used.map((memory) => html`<${Used} key=${memory.id} memory=${memory} />`)}</ul>
    <div class="dialog-actions"><button type="button" class="button"
      onClick=${() => (dialog.value = null)}>${t("action.close")}</button></div>
  </${Dialog}>`;
}

function Used({ memory }) {
  const [editing, setEditing] = useState(null);
  const [error, setError] = useState("");
  const now = known.value.has(memory.id) ? known.value.get(memory.id) : memory;
  const forget = () => { setError(""); deleteMemory(now, setError); };
  const again = () => { setError(""); addMemory(memory.text, memory.kind, setError); };
  const save = (text) => { setEditing(null); setError(""); editMemory(editing, text, setError); };
  const trouble = error && html`<p class="reason" role="alert">${error}</p>`;
  if (!now) {
    return html`<li class="memory past"><p class="memory-text">${t("memory.forgotten", { text: memory.text })}</p>
      <div class="memory-foot"><span class="grow"></span><button type="button" class="link"
        onClick=${again}>${t("used.again")}</button></div>${trouble}</li>`;
  }
  const why = WHYS.includes(memory.why) && t(`why.${memory.why}`);
  return html`<li class="memory">
    ${editing
      ? html`<${EditMemory} memory=${editing} onSave=${save} onCancel=${() => setEditing(null)} />`
      : html`<p class="memory-text" dir="auto">${now.text}</p>`}
    ${why && html`<p class="why-used">${why}</p>`}
    ${memory.quote && html`<q dir="auto">${memory.quote}</q>`}
    <div class="memory-foot"><span class="tag">${t(`kind.${memory.kind}`)}</span>
      <span>${spanOf(now) || day(memory.created_at)}</span>
      <span class="memory-acts"><${Source} memory=${memory} />
      <button type="button" class="link" aria-label=${t("memory.edit_this", { text: now.text })}
        onClick=${() => setEditing(now)}>${t("action.edit")}</button>
      <button type="button" class="link" aria-label=${t("memory.forget_this", { text: now.text })}
        onClick=${forget}>${t("used.forget")}</button></span></div>
    ${trouble}
  </li>`;
}

/** `memory` as it stands now, changed elsewhere; `text` is what was written here. */
export function ConflictDialog({ memory, text }) {
  const [mine, setMine] = useState(false);
  const close = () => (dialog.value = null);
  const save = () => { close(); if (mine) editMemory(memory, text); };
  const choice = (value, label, words) => html`<label class=${cx("choice", mine === value && "on")}>
    <input type="radio" name="conflict" checked=${mine === value}
      data-autofocus=${value ? undefined : true} onChange=${() => setMine(value)} />
    <span><b>${label}</b><span dir="auto">${words}</span></span></label>`;
  return html`<${Dialog} title=${t("conflict.title")} role="alertdialog">
    <p class="panel-text">${t("conflict.text")}</p>
    <div class="choices" role="radiogroup" aria-label=${t("conflict.title")}>
      ${choice(false, t("conflict.theirs"), memory.text)}
      ${choice(true, t("conflict.mine"), text)}
    </div>
    <div class="dialog-actions">
      <button type="button" class="button" onClick=${close}>${t("action.cancel")}</button>
      <button type="button" class="button primary" onClick=${save}>${t("conflict.save")}</button>
    </div>
  </${Dialog}>`;
}
