// Receipts under an answer: memories saved, memories forgotten, and held-back ones that need confirmation.
import { useRef, useState } from "preact/hooks";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { addMemory, deleteMemory, editMemory, memoryCache } from "../memories.js";
import { acknowledge, acknowledged, receiptKey } from "../receipts.js";
import { EditMemory } from "./EditMemory.js";

export function Receipts({ message }) {
  const { memories_saved: saved, memories_forgotten: count, forgotten, mentions, held_back: offers } = message;
  if (!saved.length && !count && !offers.length) return null;
  return html`<ul class="receipts" aria-label=${t("memory.receipts")}>
    ${saved.map((memory) => html`<${SavedReceipt} key=${memory.id} memory=${memory} />`)}
    ${forgotten.map((memory) => html`<li key=${`gone ${memory.id}`} class="receipt gone"><${Icon} name="trash"
      size=${14} /><span class="receipt-text"><b>${t("memory.forgotten_label")}</b> ${memory.text}</span></li>`)}
    ${count > 0 && !forgotten.length && html`<li class="receipt gone"><${Icon} name="trash" size=${14} /><span
      class="receipt-text">${t("memory.forgotten_count", { n: count })}</span></li>`}
    ${mentions.map((chat) => html`<li key=${`mention ${chat.conversation_id}`} class="receipt"><${Icon} name="chat"
      size=${14} /><a class="receipt-text" href=${`#/c/${chat.conversation_id}`}>${t("memory.mentioned_in", {
      n: chat.messages, title: chat.title || t("thread.new") })}</a></li>`)}
    ${offers.map((item, index) => html`<${HeldBackOffer} key=${`offer ${index}`} id=${`offer ${message.id} ${index}`}
      item=${item} />`)}
  </ul>`;
}

/** "Saved: …", until it is undone; quiet once it is kept. */
function SavedReceipt({ memory }) {
  const [editing, setEditing] = useState(null); // the memory as it was when its editor opened
  const row = useRef(null);
  const current = memoryCache.value.has(memory.id) ? memoryCache.value.get(memory.id) : memory;
  if (!current) {
    return html`<li class="receipt gone" ref=${row} tabindex="-1"><${Icon} name="undo" size=${14} /><span
      class="receipt-text">${t("memory.undone", { text: memory.text })}</span></li>`;
  }
  const kept = acknowledged.value.has(receiptKey(memory));
  const refocus = () => row.current?.focus(); // the button that had the focus is gone
  const keep = () => { acknowledge(receiptKey(memory)); refocus(); };
  const undo = async () => (await deleteMemory(current, undefined, "?words=keep")) && refocus();
  const save = async (text) => { setEditing(null); await editMemory(editing, text); };
  if (editing) {
    return html`<li class="receipt editing"><${EditMemory} memory=${editing} onSave=${save}
      onCancel=${() => setEditing(null)} /></li>`;
  }
  return html`<li class=${cx("receipt", kept && "kept")} ref=${row} tabindex="-1">
    <${Icon} name=${kept ? "check" : "memory"} size=${14} />
    <span class="receipt-text"><b>${t(kept ? "memory.kept" : "memory.saved")}</b> ${current.text}
      ${current.replaced_by && html` <span class="tag">${t("memory.past")}</span>`}
      ${!kept && current.quote && html`<span class="from"> — ${t("memory.from")} <q>${current.quote}</q></span>`}</span>
    <span class="receipt-acts">
      ${!kept && html`<button type="button" class="link" aria-label=${t("memory.keep_this", { text: current.text })}
        onClick=${keep}>${t("memory.keep")}</button>`}
      <button type="button" class="link" aria-label=${t("memory.edit_this", { text: current.text })}
        onClick=${() => setEditing(current)}>${t("action.edit")}</button>
      ${!kept && html`<button type="button" class="link" aria-label=${t("memory.undo_this", { text: current.text })}
        onClick=${undo}>${t("memory.undo")}</button>`}
    </span>
  </li>`;
}

const REASONS = ["secret", "order"];

/** What looks like a secret or an order to the model is kept only when the user says so. */
function HeldBackOffer({ id, item }) {
  const [added, setAdded] = useState(null);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState("");
  const row = useRef(null);
  if (added) return html`<${SavedReceipt} memory=${added} />`;
  if (acknowledged.value.has(id)) {
    return html`<li class="receipt gone" ref=${row} tabindex="-1"><${Icon} name="lock" size=${14} /><span
      class="receipt-text">${t("memory.not_kept")}</span></li>`;
  }
  const keep = async () => {
    setBusy(true);
    setFailure("");
    const memory = await addMemory(item.text, "fact", setFailure, true);
    setBusy(false);
    if (!memory) return;
    acknowledge(id);
    setAdded(memory);
  };
  const refuse = () => {
    acknowledge(id);
    requestAnimationFrame(() => row.current?.focus());
  };
  const reason = REASONS.includes(item.reason) ? item.reason : "secret";
  return html`<li class="receipt offer">
    <${Icon} name="lock" size=${14} />
    <span class="receipt-text">${t(`held.${reason}`)} <q>${item.text}</q></span>
    <span class="receipt-acts">
      <button type="button" class="link" disabled=${busy} onClick=${keep}>${t("held.keep")}</button>
      <button type="button" class="link" disabled=${busy} onClick=${refuse}>${t("held.leave")}</button>
    </span>
    ${failure && html`<p class="reason" role="alert">${failure}</p>`}
  </li>`;
}
