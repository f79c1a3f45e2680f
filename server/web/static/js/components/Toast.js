// Short messages in the corner, and the line that only screen readers get.
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { announcement, dismissToast, toasts } from "../state.js";
import { IconButton } from "./controls.js";

export function Toasts() {
  const runAction = (item) => { dismissToast(item.id); item.action.onClick(); };
  return html`
    <div class="toasts" role="region" aria-label=${t("toast.label")} aria-live="polite">
      ${toasts.value.map((item) => html`<div key=${item.id} class=${cx("toast", item.kind)}
        role=${item.kind === "error" ? "alert" : "status"}>
        <span>${item.text}</span>
        ${item.action && html`<button type="button" class="link"
          onClick=${() => runAction(item)}>${item.action.label}</button>`}
        <${IconButton} icon="close" size=${14} label=${t("action.dismiss")} onClick=${() => dismissToast(item.id)} />
      </div>`)}
    </div>
    <div class="unseen" aria-live="polite" aria-atomic="true">${announcement.value}</div>`;
}
