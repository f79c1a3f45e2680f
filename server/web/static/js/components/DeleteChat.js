// Deleting a chat: what was remembered from it is listed, and forgotten with it where the user says so.
import { useEffect, useState } from "preact/hooks";
import { remove } from "../actions.js";
import { call } from "../api.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { deleteMemory } from "../memories.js";
import { dialog, toast } from "../state.js";
import { ListState } from "./controls.js";
import { Dialog } from "./Dialog.js";

export function DeleteChatDialog({ item }) {
  const [held, setHeld] = useState({ state: "loading", items: [], error: "" });
  const [chosen, setChosen] = useState(new Set());
  const [trouble, setTrouble] = useState("");
  const [busy, setBusy] = useState(false);
  const load = async () => {
    setHeld({ state: "loading", items: [], error: "" });
    try {
      const { memories: items } = await call("GET", `/api/conversations/${encodeURIComponent(item.id)}/memories`);
      setHeld({ state: "ready", items, error: "" });
    } catch (error) {
      setHeld({ state: "error", items: [], error: t("deletion.unknown", { message: error.message }) });
    }
  };
  useEffect(() => { load(); }, [item.id]);
  const close = () => (dialog.value = null);
  const toggle = (id) => setChosen(new Set(chosen.has(id) ? [...chosen].filter((one) => one !== id) : [...chosen, id]));
  const every = held.items.length > 0 && held.items.every((memory) => chosen.has(memory.id));
  const go = async () => {
    setBusy(true);
    setTrouble("");
    // What is to be forgotten first: when that fails, the chat that tells where it came from is still there.
    for (const memory of every ? [] : held.items.filter((one) => chosen.has(one.id))) {
      if (await deleteMemory(memory, setTrouble)) continue;
      setBusy(false);
      return;
    }
    close();
    if (await remove(item.id, { memories: every })) toast(chosen.size ? t("deletion.done", { n: chosen.size }) : t("chat.deleted"));
  };
  return html`<${Dialog} title=${t("chat.delete_title")} role="alertdialog">
    <p>${t("chat.delete_text", { title: item.title })}</p>
    <${ListState} state=${held.state} error=${held.error} onRetry=${load} lines=${2} />
    ${held.items.length > 0 && html`<fieldset class="forget-too">
      <legend>${t("deletion.offer", { n: held.items.length })}</legend>
      ${held.items.length > 1 && html`<label class="check all"><input type="checkbox" checked=${every}
        onChange=${() => setChosen(new Set(every ? [] : held.items.map((memory) => memory.id)))} />
        <span>${t("deletion.all")}</span></label>`}
      <ul>${held.items.map((memory) => html`<li key=${memory.id}><label class="check"><input type="checkbox"
        checked=${chosen.has(memory.id)} onChange=${() => toggle(memory.id)} /><span
        dir="auto">${memory.text}</span></label></li>`)}</ul>
      <p class="hint">${t("deletion.stays")}</p>
    </fieldset>`}
    ${trouble && html`<div class="notice error" role="alert"><span>${trouble}</span></div>`}
    <div class="dialog-actions">
      <button type="button" class="button" data-autofocus onClick=${close}>${t("action.cancel")}</button>
      <button type="button" class="button danger" disabled=${busy || held.state === "loading"} onClick=${go}>
        ${chosen.size ? t("deletion.both", { n: chosen.size }) : t("chat.delete")}</button>
    </div>
  </${Dialog}>`;
}
