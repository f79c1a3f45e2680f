// Memory: what is known of the user, with the words it came from; adding, editing, forgetting.
import { useEffect, useState } from "preact/hooks";
import { date, day } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { addMemory, editMemory, forgetMemory, loadMemories, memories } from "../memories.js";
import { dialog } from "../state.js";
import { IconButton, InlineEdit, ListState } from "./controls.js";
import { Dialog } from "./Dialog.js";

const KINDS = ["fact", "preference", "instruction", "identity"];

export function MemoryPanel() {
  const { state, items, error } = memories.value;
  useEffect(() => { loadMemories(); }, []);
  return html`
    <${NewMemory} />
    <${ListState} state=${state} error=${error} onRetry=${loadMemories}
      empty=${state === "ready" && items.length === 0 && t("memory.empty")} />
    <ul class="memories">${items.map((memory) => html`<${MemoryRow} key=${memory.id} memory=${memory} />`)}</ul>`;
}

function NewMemory() {
  const [text, setText] = useState("");
  const [kind, setKind] = useState("fact");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    setBusy(true);
    if (await addMemory(text.trim(), kind)) setText("");
    setBusy(false);
  };
  return html`<form class="new-memory" onSubmit=${submit}>
    <input class="field" value=${text} placeholder=${t("memory.placeholder")} aria-label=${t("memory.placeholder")}
      onInput=${(event) => setText(event.target.value)} />
    <div class="row-actions">
      <select class="field" aria-label=${t("memory.kind")} value=${kind}
        onChange=${(event) => setKind(event.target.value)}>
        ${KINDS.map((name) => html`<option key=${name} value=${name}>${t(`kind.${name}`)}</option>`)}</select>
      <button type="submit" class="button" disabled=${busy || !text.trim()}>${t("memory.add")}</button>
    </div>
  </form>`;
}

function MemoryRow({ memory }) {
  const [editing, setEditing] = useState(false);
  const save = async (text) => {
    setEditing(false);
    await editMemory(memory, text);
  };
  return html`<li class="memory">
    ${editing
      ? html`<${InlineEdit} multiline value=${memory.text} label=${t("memory.edit")} onSave=${save}
        onCancel=${() => setEditing(false)} />`
      : html`<p class="memory-text">${memory.text}</p>`}
    ${memory.quote && memory.quote !== memory.text && html`<q>${memory.quote}</q>`}
    <div class="memory-foot"><span class="tag">${t(`kind.${memory.kind}`)}</span>
      <span title=${date(memory.updated_at)}>${day(memory.created_at)}</span>
      <span class="grow"></span>
      ${memory.conversation_id && html`<a class="link" href=${`#/c/${memory.conversation_id}`}>${t("memory.chat")}</a>`}
      <${IconButton} icon="edit" size=${16} label=${t("memory.edit_this", { text: memory.text })}
        onClick=${() => setEditing(true)} />
      <${IconButton} icon="trash" size=${16} label=${t("memory.forget_this", { text: memory.text })}
        onClick=${() => forgetMemory(memory)} /></div>
  </li>`;
}

/** Which memories an answer was given. */
export function MemoriesDialog({ memories: used }) {
  return html`<${Dialog} title=${t("memory.used_title")}>
    <p class="panel-text">${t("memory.used_text")}</p>
    <ul class="memories">${used.map((memory) => html`<li key=${memory.id} class="memory">
      <p class="memory-text">${memory.text}</p>
      ${memory.quote && html`<q>${memory.quote}</q>`}
      <div class="memory-foot"><span class="tag">${t(`kind.${memory.kind}`)}</span>
        <span title=${date(memory.created_at)}>${day(memory.created_at)}</span></div></li>`)}</ul>
    <div class="dialog-actions"><button type="button" class="button"
      onClick=${() => (dialog.value = null)}>${t("action.close")}</button></div>
  </${Dialog}>`;
}
