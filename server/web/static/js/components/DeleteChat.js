// Deleting a chat: what was remembered from it is listed, and forgotten with it where the user says so.
import { useEffect, useState } from "preact/hooks";
import { deleteChat } from "../actions.js";
import { call } from "../api.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { deleteMemory } from "../memories.js";
import { dialog, toast } from "../state.js";
import { ListState } from "./controls.js";
import { Dialog } from "./Dialog.js";

export function DeleteChatDialog({ item }) {
  const [related, setRelated] = useState({ state: "loading", items: [], error: "" });
  const [selectedIds, setSelectedIds] = useState(new Set());
  const [failure, setFailure] = useState("");
  const [busy, setBusy] = useState(false);
  const load = async () => {
    setRelated({ state: "loading", items: [], error: "" });
    try {
      const { memories: items } = await call("GET", `/api/conversations/${encodeURIComponent(item.id)}/memories`);
      setRelated({ state: "ready", items, error: "" });
    } catch (error) {
      setRelated({ state: "error", items: [], error: t("deletion.unknown", { message: error.message }) });
    }
  };
  useEffect(() => { load(); }, [item.id]);
  const close = () => (dialog.value = null);
  const toggle = (id) => setSelectedIds(new Set(
    selectedIds.has(id) ? [...selectedIds].filter((one) => one !== id) : [...selectedIds, id],
  ));
  const allSelected = related.items.length > 0 && related.items.every((memory) => selectedIds.has(memory.id));
  const confirmDeletion = async () => {
    setBusy(true);
    setFailure("");
    // Memories first: when one cannot be deleted, the chat it came from still exists.
    for (const memory of allSelected ? [] : related.items.filter((one) => selectedIds.has(one.id))) {
      if (await deleteMemory(memory, setFailure)) continue;
      setBusy(false);
      return;
    }
    close();
    if (await deleteChat(item.id, { memories: allSelected })) {
      toast(selectedIds.size ? t("deletion.done", { n: selectedIds.size }) : t("chat.deleted"));
    }
  };
  return html`<${Dialog} title=${t("chat.delete_title")} role="alertdialog">
    <p>${t("chat.delete_text", { title: item.title || t("thread.new") })}</p>
    <${ListState} state=${related.state} error=${related.error} onRetry=${load} lines=${2} />
    ${related.items.length > 0 && html`<fieldset class="forget-too">
      <legend>${t("deletion.offer", { n: related.items.length })}</legend>
      ${related.items.length > 1 && html`<label class="check all"><input type="checkbox" checked=${allSelected}
        onChange=${() => setSelectedIds(new Set(allSelected ? [] : related.items.map((memory) => memory.id)))} />
        <span>${t("deletion.all")}</span></label>`}
      <ul>${related.items.map((memory) => html`<li key=${memory.id}><label class="check"><input type="checkbox"
        checked=${selectedIds.has(memory.id)} onChange=${() => toggle(memory.id)} /><span
        dir="auto">${memory.text}</span></label></li>`)}</ul>
      <p class="hint">${t("deletion.stays")}</p>
    </fieldset>`}
    ${failure && html`<div class="notice error" role="alert"><span>${failure}</span></div>`}
    <div class="dialog-actions">
      <button type="button" class="button" data-autofocus onClick=${close}>${t("action.cancel")}</button>
      <button type="button" class="button danger" disabled=${busy || related.state === "loading"}
        onClick=${confirmDeletion}>
        ${selectedIds.size ? t("deletion.both", { n: selectedIds.size }) : t("chat.delete")}</button>
    </div>
  </${Dialog}>`;
}
