// After an answer: what was remembered from the user's words, with undo and edit.
import { useState } from "preact/hooks";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { deleteMemory, editMemory, memories } from "../memories.js";
import { InlineEdit } from "./controls.js";

export function Receipts({ message }) {
  if (!message.memories_saved.length) return null;
  return html`<ul class="receipts">${message.memories_saved.map((memory) => html`<${Receipt} key=${memory.id}
    memory=${memory} />`)}</ul>`;
}

function Receipt({ memory }) {
  const [text, setText] = useState(null); // changed here
  const [gone, setGone] = useState(false);
  const [editing, setEditing] = useState(false);
  const stored = memories.value.items.find((item) => item.id === memory.id);
  const forgotten = gone || (memories.value.state === "ready" && !stored);
  const shown = stored?.text ?? text ?? memory.text;
  if (forgotten) return html`<li class="receipt gone"><${Icon} name="undo"
    size=${14} />${t("memory.undone", { text: shown })}</li>`;
  const undo = async () => (await deleteMemory(memory)) && setGone(true);
  const save = async (changed) => {
    setEditing(false);
    if (await editMemory(memory, changed)) setText(changed);
  };
  return html`<li class="receipt">
    <${Icon} name="memory" size=${14} />
    ${editing
      ? html`<${InlineEdit} value=${shown} label=${t("memory.edit")} onSave=${save}
        onCancel=${() => setEditing(false)} />`
      : html`<span class="receipt-text"><b>${t("memory.saved")}</b> ${shown}
          ${memory.quote && html`<span class="from"> — ${t("memory.from")} <q>${memory.quote}</q></span>`}</span>
          <span class="receipt-acts"><button type="button" class="link" onClick=${undo}>${t("memory.undo")}</button>
            <button type="button" class="link" onClick=${() => setEditing(true)}>${t("action.edit")}</button></span>`}
  </li>`;
}
