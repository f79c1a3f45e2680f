// One memory: text, source, validity; editing, forgetting, its timeline.
import { useState } from "preact/hooks";
import { date, day } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { editMemory, forgetMemory } from "../memories.js";
import { chatUrl, navigate } from "../router.js";
import { dialog, isNarrow, panel } from "../state.js";
import { isPast, validityLabel } from "../validity.js";
import { IconButton } from "./controls.js";
import { EditMemory } from "./EditMemory.js";
import { Timeline } from "./Timeline.js";

export function MemoryRow({ memory }) {
  const [editing, setEditing] = useState(null); // the memory as it was when its editor opened
  const [open, setOpen] = useState(false);
  const save = async (text) => {
    setEditing(null);
    await editMemory(editing, text);
  };
  const isOutdated = isPast(memory);
  return html`<li class=${cx("memory", isOutdated && "past")}>
    ${editing
      ? html`<${EditMemory} memory=${editing} onSave=${save} onCancel=${() => setEditing(null)} />`
      : html`<p class="memory-text" dir="auto">${memory.text}</p>`}
    ${memory.quote && memory.quote !== memory.text && html`<q dir="auto">${memory.quote}</q>`}
    <div class="memory-foot"><span class="tag">${t(`kind.${memory.kind}`)}</span>
      ${isOutdated && html`<span class="tag past">${t("memory.past")}</span>`}
      <span title=${date(memory.updated_at)}>${validityLabel(memory) || day(memory.created_at)}</span>
      <span class="memory-acts"><${SourceLink} memory=${memory} />
      <${IconButton} icon="clock" size=${16} label=${t("memory.history_of", { text: memory.text })}
        aria-expanded=${open} onClick=${() => setOpen(!open)} />
      ${!isOutdated && html`<${IconButton} icon="edit" size=${16} label=${t("memory.edit_this", { text: memory.text })}
        onClick=${() => setEditing(memory)} />`}
      <${IconButton} icon="trash" size=${16} label=${t("memory.forget_this", { text: memory.text })}
        onClick=${() => forgetMemory(memory)} /></span></div>
    ${open && html`<${Timeline} memory=${memory} />`}
  </li>`;
}

/** A link to the turn that a memory was extracted from. */
export function SourceLink({ memory }) {
  const { conversation_id: id, message_id: message } = memory;
  if (!id) return null;
  const open = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return; // the browser's own: a new tab
    event.preventDefault();
    dialog.value = null;
    if (isNarrow.value) panel.value = null;
    navigate(id, { message });
  };
  return html`<a class="icon-button" href=${chatUrl(id, message)} title=${t("memory.source")}
    aria-label=${t("memory.source_of", { text: memory.text })} onClick=${open}><${Icon} name="chat" size=${16} /></a>`;
}
