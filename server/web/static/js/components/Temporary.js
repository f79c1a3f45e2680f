// Temporary chats: choosing one, the mark that says so, and what it means.
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { newChatTemporary } from "../state.js";

export const isTemporary = (thread) => (thread ? thread.temporary.value : newChatTemporary.value);

/** In the header: a switch while the chat is new, a mark once it is begun. */
export function TemporaryMark({ thread }) {
  if (thread) {
    return thread.temporary.value && html`<span class="chip temporary" title=${t("temporary.means")}>
      <${Icon} name="temporary" size=${14} />${t("temporary.mark")}</span>`;
  }
  const on = newChatTemporary.value;
  const toggle = () => {
    newChatTemporary.value = !on;
    document.querySelector(".composer textarea")?.focus();
  };
  return html`<button type="button" class=${cx("pill temporary-switch", on && "on")} aria-pressed=${on}
    aria-label=${t("temporary.chat")} title=${t("temporary.means")} onClick=${toggle}><${Icon} name="temporary"
    size=${16} /><span>${t("temporary.chat")}</span></button>`;
}

/** One sentence above the field of a temporary chat. */
export function TemporaryNote({ thread }) {
  return isTemporary(thread) && html`<p class="temporary-note"><${Icon} name="temporary" size=${14} /><span>
    <b>${t("temporary.chat")}.</b> ${t("temporary.means")}</span></p>`;
}
