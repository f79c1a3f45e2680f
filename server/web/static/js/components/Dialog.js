// The one modal dialog: keeps the focus inside, closes on Escape or outside, and gives the focus back.
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { dialog } from "../state.js";
import { IconButton } from "./controls.js";

const FOCUSABLE = "button:not(:disabled), a[href], input:not(:disabled), select, textarea, summary, [tabindex='0']";

export function Dialog({ title, wide, role = "dialog", children }) {
  const dialogRef = useRef(null);
  const id = useId();
  const close = () => (dialog.value = null);
  useLayoutEffect(() => {
    const previousFocus = document.activeElement;
    const element = dialogRef.current;
    element.showModal();
    (element.querySelector("[data-autofocus]") ?? element.querySelector(FOCUSABLE))?.focus();
    return () => {
      if (element.open) element.close();
      // what had the focus may have gone with what the dialog did
      if (previousFocus?.isConnected) previousFocus.focus();
      else document.querySelector(".composer textarea")?.focus();
    };
  }, []);
  useEffect(() => {
    dialogRef.current.scrollTop = 0;
  }, [title]);
  const onKeyDown = (event) => {
    if (event.key !== "Tab") return;
    const focusable = [...dialogRef.current.querySelectorAll(FOCUSABLE)]
      .filter((element) => element.offsetParent !== null);
    const edge = event.shiftKey ? focusable[0] : focusable.at(-1);
    if (document.activeElement !== edge && dialogRef.current.contains(document.activeElement)) return;
    event.preventDefault();
    (event.shiftKey ? focusable.at(-1) : focusable[0])?.focus();
  };
  return html`<dialog ref=${dialogRef} class=${cx("dialog", wide && "wide")} role=${role} aria-labelledby=${id}
    aria-modal="true"
    onCancel=${(event) => { event.preventDefault(); close(); }} onKeyDown=${onKeyDown}
    onMouseDown=${(event) => event.target === dialogRef.current && close()}>
    <div class="dialog-body">
      <header class="dialog-head"><h2 id=${id}>${title}</h2>
        <${IconButton} icon="close" label=${t("action.close")} onClick=${close} /></header>
      ${children}
    </div>
  </dialog>`;
}

/** With `option` there is a box to tick, and `onConfirm` is told whether it was. */
export function ConfirmDialog({ title, text, action, danger, option, onConfirm }) {
  const [chosen, setChosen] = useState(false);
  const close = () => (dialog.value = null);
  const confirm = () => { close(); onConfirm(chosen); };
  return html`<${Dialog} title=${title} role="alertdialog">
    <p>${text}</p>
    ${option && html`<label class="check"><input type="checkbox" checked=${chosen}
      onChange=${() => setChosen(!chosen)} /><span>${option}</span></label>`}
    <div class="dialog-actions">
      <button type="button" class="button" data-autofocus onClick=${close}>${t("action.cancel")}</button>
      <button type="button" class=${cx("button", danger ? "danger" : "primary")} onClick=${confirm}>${action}</button>
    </div>
  </${Dialog}>`;
}
