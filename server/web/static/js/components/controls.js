// Small controls used everywhere: icon button, menu, segmented choice, inline confirm, states of a list.
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";

/** A button that shows only an icon; `label` is its name and tooltip. */
export function IconButton({ icon, label, class: extra, size = 18, ...rest }) {
  return html`<button type="button" class=${cx("icon-button", extra)} aria-label=${label} title=${label} ...${rest}>
    <${Icon} name=${icon} size=${size} />
  </button>`;
}

/**
 * A button with a popover below or above it. `children` is a function of `close`. Uses the browser's own
 * popover: top layer, closes on Escape and on a click outside.
 */
export function Popover({ button, label, class: extra, popupClass, role = "menu", children, disabled }) {
  const [open, setOpen] = useState(false);
  const trigger = useRef(null);
  const wasOpen = useRef(false); // when the pointer went down; the browser then closes it before the click
  const close = () => setOpen(false);
  const toggle = (event) => setOpen(event.detail > 0 && wasOpen.current ? false : !open);
  return html`
    <button type="button" ref=${trigger} class=${extra} aria-label=${label} title=${label} aria-expanded=${open}
      aria-haspopup=${role === "menu" ? "menu" : "dialog"} disabled=${disabled}
      onPointerDown=${() => (wasOpen.current = open)} onClick=${toggle}>${button}</button>
    ${open &&
    html`<${Popup} trigger=${trigger} class=${popupClass} role=${role} label=${label}
      onClose=${close}>${children(close)}</${Popup}>`}
  `;
}

function Popup({ trigger, class: extra, role, label, onClose, children }) {
  const popup = useRef(null);
  useLayoutEffect(() => {
    const element = popup.current;
    const anchor = trigger.current;
    element.showPopover();
    positionPopup(element, anchor.getBoundingClientRect());
    focusableItems(element)[0]?.focus();
    const onToggle = (event) => event.newState === "closed" && onClose();
    element.addEventListener("toggle", onToggle);
    return () => {
      element.removeEventListener("toggle", onToggle);
      if (element.contains(document.activeElement) || document.activeElement === document.body) anchor.focus();
    };
  }, []);
  const onKeyDown = (event) => {
    const items = focusableItems(popup.current);
    const index = items.indexOf(document.activeElement);
    const next = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: items.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      items[(next + items.length) % items.length]?.focus();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      event.preventDefault();
      onClose();
    } else if (event.key === "Tab" && role === "menu") {
      onClose();
    }
  };
  return html`<div ref=${popup} popover="auto" class=${cx("popup", extra)} role=${role} aria-label=${label}
    onKeyDown=${onKeyDown}>
    ${children}
  </div>`;
}

const focusableItems = (element) => [...element.querySelectorAll("button:not(:disabled), a[href], input")];

function positionPopup(popup, anchor) {
  const gap = 6;
  const { offsetWidth: width, offsetHeight: height } = popup;
  const below = anchor.bottom + gap + height <= innerHeight || anchor.top < innerHeight / 2;
  const left = Math.min(Math.max(gap, anchor.left), Math.max(gap, innerWidth - width - gap));
  popup.style.left = `${left}px`;
  if (below) popup.style.top = `${anchor.bottom + gap}px`;
  else popup.style.bottom = `${innerHeight - anchor.top + gap}px`;
  popup.style.maxHeight = `${(below ? innerHeight - anchor.bottom : anchor.top) - gap * 2}px`;
}

/** A row of a menu. */
export function MenuItem({ icon, onClick, danger, children }) {
  return html`<button type="button" role="menuitem" class=${cx("menu-item", danger && "danger")} onClick=${onClick}>
    ${icon && html`<${Icon} name=${icon} size=${16} />`}<span>${children}</span>
  </button>`;
}

/** One of few: [{value, label}]. */
export function Segmented({ label, options, value, onChange }) {
  return html`<div class="segmented" role="radiogroup" aria-label=${label}>
    ${options.map((option) => html`<label key=${option.value} class=${cx(option.value === value && "on")}>
      <input type="radio" name=${label} checked=${option.value === value} onChange=${() => onChange(option.value)} />
      <span>${option.label}</span>
    </label>`)}
  </div>`;
}

/** The field has the focus when it is drawn, its text selected: the keys that follow are for it, not for the page. */
export function useAutofocus(field) {
  useLayoutEffect(() => {
    field.current.focus();
    field.current.select();
  }, []);
}

/** A one-line text field that saves on Enter and gives up on Escape. */
export function InlineEdit({ value, label, onSave, onCancel, multiline = false }) {
  const field = useRef(null);
  useAutofocus(field);
  const finished = useRef(false); // unmounting blurs the field, which would save twice
  const cancel = () => {
    finished.current = true;
    onCancel();
  };
  const saveNow = () => {
    if (finished.current) return;
    finished.current = true;
    const text = field.current.value.trim();
    if (text && text !== value) onSave(text);
    else onCancel();
  };
  const onKeyDown = (event) => {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !(multiline && event.shiftKey)) {
      event.preventDefault();
      saveNow();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      event.preventDefault();
      cancel();
    }
  };
  const tag = multiline ? "textarea" : "input";
  return html`<${tag} ref=${field} class="field" rows="3" aria-label=${label} defaultValue=${value}
    onKeyDown=${onKeyDown}
    onBlur=${multiline ? undefined : saveNow} />`;
}

/** Loading, error with retry, or nothing there. */
export function ListState({ state, error, onRetry, empty, lines = 4 }) {
  if (state === "loading") {
    return html`<div class="skeleton" role="status" aria-label=${t("state.loading")}>
      ${Array.from({ length: lines }, (_, i) => html`<span key=${i}></span>`)}
    </div>`;
  }
  if (state === "error") {
    return html`<div class="notice error" role="alert"><span>${error}</span>
      <button type="button" class="button small" onClick=${onRetry}>${t("action.retry")}</button></div>`;
  }
  return empty ? html`<p class="empty">${empty}</p>` : null;
}
