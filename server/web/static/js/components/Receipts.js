// After an answer: what was remembered from the user's words, what was forgotten, and what was not kept unasked.
import { useRef, useState } from "preact/hooks";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { addMemory, deleteMemory, editMemory, known } from "../memories.js";
import { answer, answered, keyOf } from "../receipts.js";
import { EditMemory } from "./EditMemory.js";

export function Receipts({ message }) {
  const { memories_saved: saved, memories_forgotten: count, forgotten, held_back: offers } = message;
  if (!saved.length && !count && !offers.length) return null;
  return html`<ul class="receipts" aria-label=${t("memory.receipts")}>
    ${saved.map((memory) => html`<${Saved} key=${memory.id} memory=${memory} />`)}
    ${forgotten.map((memory) => html`<li key=${`gone ${memory.id}`} class="receipt gone"><${Icon} name="trash"
      size=${14} /><span class="receipt-text"><b>${t("memory.forgotten_label")}</b> ${memory.text}</span></li>`)}
    ${count > 0 && !forgotten.length && html`<li class="receipt gone"><${Icon} name="trash" size=${14} /><span
      class="receipt-text">${t("memory.forgotten_count", { n: count })}</span></li>`}
    ${offers.map((item, index) => html`<${Offer} key=${`offer ${index}`} id=${`offer ${message.id} ${index}`}
      item=${item} />`)}
  </ul>`;
}

/** "Saved: …", until it is undone; quiet once it is kept. */
function Saved({ memory }) {
  const [editing, setEditing] = useState(null); // the memory as it was when its editor opened
  const row = useRef(null);
  const now = known.value.has(memory.id) ? known.value.get(memory.id) : memory;
  if (!now) {
    return html`<li class="receipt gone" ref=${row} tabindex="-1"><${Icon} name="undo" size=${14} /><span
      class="receipt-text">${t("memory.undone", { text: memory.text })}</span></li>`;
  }
  const kept = answered.value.has(keyOf(memory));
  const stay = () => row.current?.focus(); // the button that had the focus is gone
  const keep = () => { answer(keyOf(memory)); stay(); };
  const undo = async () => (await deleteMemory(now)) && stay();
  const save = async (text) => { setEditing(null); await editMemory(editing, text); };
  if (editing) {
    return html`<li class="receipt editing"><${EditMemory} memory=${editing} onSave=${save}
      onCancel=${() => setEditing(null)} /></li>`;
  }
  return html`<li class=${cx("receipt", kept && "kept")} ref=${row} tabindex="-1">
    <${Icon} name=${kept ? "check" : "memory"} size=${14} />
    <span class="receipt-text"><b>${t(kept ? "memory.kept" : "memory.saved")}</b> ${now.text}
      ${now.replaced_by && html` <span class="tag">${t("memory.past")}</span>`}
      ${!kept && now.quote && html`<span class="from"> — ${t("memory.from")} <q>${now.quote}</q></span>`}</span>
    <span class="receipt-acts">
      ${!kept && html`<button type="button" class="link" aria-label=${t("memory.keep_this", { text: now.text })}
        onClick=${keep}>${t("memory.keep")}</button>`}
      <button type="button" class="link" aria-label=${t("memory.edit_this", { text: now.text })}
        onClick=${() => setEditing(now)}>${t("action.edit")}</button>
      ${!kept && html`<button type="button" class="link" aria-label=${t("memory.undo_this", { text: now.text })}
        onClick=${undo}>${t("memory.undo")}</button>`}
    </span>
  </li>`;
}

const REASONS = ["secret", "order"];

/** What looks like a secret or an order to the model is kept only when the user says so. */
function Offer({ id, item }) {
  const [added, setAdded] = useState(null);
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState("");
  const row = useRef(null);
  if (added) return html`<${Saved} memory=${added} />`;
  if (answered.value.has(id)) {
    return html`<li class="receipt gone" ref=${row} tabindex="-1"><${Icon} name="lock" size=${14} /><span
      class="receipt-text">${t("memory.not_kept")}</span></li>`;
  }
  const keep = async () => {
    setBusy(true);
    setTrouble("");
    const memory = await addMemory(item.text, "fact", setTrouble, true);
    setBusy(false);
    if (!memory) return;
    answer(id);
    setAdded(memory);
  };
  const refuse = () => {
    answer(id);
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
    ${trouble && html`<p class="reason" role="alert">${trouble}</p>`}
  </li>`;
}
