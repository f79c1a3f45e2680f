// The one modal dialog: keeps the focus inside, closes on Escape or outside, and gives the focus back.
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { dialog } from "../state.js";
import { IconButton } from "./controls.js";

const FOCUSABLE = "button:not(:disabled), a[href], input:not(:disabled), select, textarea, summary, [tabindex='0']";

export function Dialog({ title, wide, role = "dialog", children }) {
  const box = useRef(null);
  const id = useId();
  const close = () => (dialog.value = null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    const element = box.current;
    element.showModal();
    (element.querySelector("[data-autofocus]") ?? element.querySelector(FOCUSABLE))?.focus();
    return () => {
      if (element.open) element.close();
      // what had the focus may have gone with what the dialog did
      if (before?.isConnected) before.focus();
      else document.querySelector(".composer textarea")?.focus();
    };
  }, []);
  useEffect(() => {
    box.current.scrollTop = 0;
  }, [title]);
  const onKeyDown = (event) => {
    if (event.key !== "Tab") return;
    const all = [...box.current.querySelectorAll(FOCUSABLE)].filter((element) => element.offsetParent !== null);
    const edge = event.shiftKey ? all[0] : all.at(-1);
    if (document.activeElement !== edge && box.current.contains(document.activeElement)) return;
    event.preventDefault();
    (event.shiftKey ? all.at(-1) : all[0])?.focus();
  };
  return html`<dialog ref=${box} class=${cx("dialog", wide && "wide")} role=${role} aria-labelledby=${id}
    aria-modal="true"
    onCancel=${(event) => { event.preventDefault(); close(); }} onKeyDown=${onKeyDown}
    onMouseDown=${(event) => event.target === box.current && close()}>
    <div class="dialog-body">
      <header class="dialog-head"><h2 id=${id}>${title}</h2>
        <${IconButton} icon="close" label=${t("action.close")} onClick=${close} /></header>
      ${children}
    </div>
  </dialog>`;
}

export function ConfirmDialog({ title, text, action, danger, run }) {
  const close = () => (dialog.value = null);
  const go = () => { close(); run(); };
  return html`<${Dialog} title=${title} role="alertdialog">
    <p>${text}</p>
    <div class="dialog-actions">
      <button type="button" class="button" data-autofocus onClick=${close}>${t("action.cancel")}</button>
      <button type="button" class=${cx("button", danger ? "danger" : "primary")} onClick=${go}>${action}</button>
    </div>
  </${Dialog}>`;
}
