// The memories in an answer's prompt and why they are there; and the choice between two conflicting edits.
import { useState } from "preact/hooks";
import { day } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { addMemory, deleteMemory, editMemory, memoryCache } from "../memories.js";
import { dialog } from "../state.js";
import { validityLabel } from "../validity.js";
import { Dialog } from "./Dialog.js";
import { EditMemory } from "./EditMemory.js";
import { SourceLink } from "./MemoryRow.js";

const REASONS = ["profile", "words", "meaning", "asked"];

export function UsedMemoriesDialog({ memories }) {
  return html`<${Dialog} title=${t("used.title", { n: memories.length })}>
    <p class="panel-text">${t("used.text")}</p>
    <ul class="memories">${memories.map((memory) => html`<${UsedMemory} key=${memory.id} memory=${memory} />`)}</ul>
    <div class="dialog-actions"><button type="button" class="button"
      onClick=${() => (dialog.value = null)}>${t("action.close")}</button></div>
  </${Dialog}>`;
}

function UsedMemory({ memory }) {
  const [editing, setEditing] = useState(null);
  const [error, setError] = useState("");
  const current = memoryCache.value.has(memory.id) ? memoryCache.value.get(memory.id) : memory;
  const forget = () => { setError(""); deleteMemory(current, setError); };
  const addAgain = () => { setError(""); addMemory(memory.text, memory.kind, setError); };
  const save = (text) => { setEditing(null); setError(""); editMemory(editing, text, setError); };
  const errorNote = error && html`<p class="reason" role="alert">${error}</p>`;
  if (!current) {
    return html`<li class="memory past"><p class="memory-text">${t("memory.forgotten", { text: memory.text })}</p>
      <div class="memory-foot"><span class="grow"></span><button type="button" class="link"
        onClick=${addAgain}>${t("used.add_again")}</button></div>${errorNote}</li>`;
  }
  const why = REASONS.includes(memory.why) && t(`why.${memory.why}`);
  return html`<li class="memory">
    ${editing
      ? html`<${EditMemory} memory=${editing} onSave=${save} onCancel=${() => setEditing(null)} />`
      : html`<p class="memory-text" dir="auto">${current.text}</p>`}
    ${why && html`<p class="why-used">${why}</p>`}
    ${memory.quote && html`<q dir="auto">${memory.quote}</q>`}
    <div class="memory-foot"><span class="tag">${t(`kind.${memory.kind}`)}</span>
      <span>${validityLabel(current) || day(memory.created_at)}</span>
      <span class="memory-acts"><${SourceLink} memory=${memory} />
      <button type="button" class="link" aria-label=${t("memory.edit_this", { text: current.text })}
        onClick=${() => setEditing(current)}>${t("action.edit")}</button>
      <button type="button" class="link" aria-label=${t("memory.forget_this", { text: current.text })}
        onClick=${forget}>${t("used.forget")}</button></span></div>
    ${errorNote}
  </li>`;
}

/** `memory` is the stored version, changed elsewhere; `text` is the edit made here. */
export function ConflictDialog({ memory, text }) {
  const [keepMine, setKeepMine] = useState(false);
  const close = () => (dialog.value = null);
  const save = () => { close(); if (keepMine) editMemory(memory, text); };
  const choice = (value, label, version) => html`<label class=${cx("choice", keepMine === value && "on")}>
    <input type="radio" name="conflict" checked=${keepMine === value}
      data-autofocus=${value ? undefined : true} onChange=${() => setKeepMine(value)} />
    <span><b>${label}</b><span dir="auto">${version}</span></span></label>`;
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
