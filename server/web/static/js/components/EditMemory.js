// Changing the words of a memory: Enter saves, Escape leaves, nothing empty is taken.
import { useId, useRef, useState } from "preact/hooks";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { useAutofocus } from "./controls.js";

export function EditMemory({ memory, onSave, onCancel }) {
  const textarea = useRef(null);
  const id = useId();
  const [text, setText] = useState(memory.text);
  const empty = !text.trim();
  useAutofocus(textarea);
  const save = () => {
    if (empty) return;
    if (text.trim() === memory.text) onCancel();
    else onSave(text.trim());
  };
  const onKeyDown = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      save();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      event.preventDefault();
      onCancel();
    }
  };
  return html`<div class="edit-memory">
    <textarea ref=${textarea} class="field" rows="2" dir="auto" value=${text} aria-label=${t("memory.edit")}
      aria-invalid=${empty} aria-describedby=${empty ? id : undefined} onKeyDown=${onKeyDown}
      onInput=${(event) => setText(event.target.value)}></textarea>
    ${empty && html`<p id=${id} class="hint warn" role="alert">${t("memory.edit_empty")}</p>`}
    <div class="row-actions">
      <button type="button" class="button small primary" disabled=${empty} onClick=${save}>${t("action.save")}</button>
      <button type="button" class="button small" onClick=${onCancel}>${t("action.cancel")}</button>
    </div>
  </div>`;
}
