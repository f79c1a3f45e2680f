// The tooltip of a citation (its passage) or of a marked sentence (the reason): on hover, on focus, at a tap.
// A click opens the passage; at a tap the card comes first, with a button that opens it.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { formatCitations, splitAtSpans } from "../checks.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { unsupportedReason } from "../markdown.js";
import { locationLabel, openSource } from "../sources.js";

const EXCERPT_CHARS = 180;    // characters of a passage
const CLOSE_DELAY_MS = 160; // milliseconds in which the pointer may go from the citation to the card

export function SourceCard({ root, message }) {
  const [shown, setShown] = useState(null); // {target, tapped}
  const latest = useRef({ message, shown });
  latest.current = { message, shown };
  const closeTimer = useRef(0);

  const close = () => { clearTimeout(closeTimer.current); setShown(null); };
  const cancelClose = () => clearTimeout(closeTimer.current);
  const scheduleClose = () => { cancelClose(); closeTimer.current = setTimeout(close, CLOSE_DELAY_MS); };

  useEffect(() => {
    const element = root.current;
    const controller = new AbortController();
    const on = (target, type, handler, options) =>
      target.addEventListener(type, handler, { signal: controller.signal, ...options });
    const anchorAt = (event) => event.target.closest?.(".cite, .bare");
    const open = (target, tapped = false) => { cancelClose(); setShown({ target, tapped }); };
    let touched = false;

    on(element, "pointerdown", (event) => (touched = event.pointerType === "touch"));
    on(element, "pointerover", (event) => {
      const target = event.pointerType !== "touch" && anchorAt(event);
      if (target?.matches(".cite")) open(target); // a marked sentence has its title
    });
    on(element, "pointerout", (event) => event.pointerType !== "touch" && anchorAt(event) && scheduleClose());
    on(element, "focusin", (event) => event.target.matches(".cite:focus-visible, .bare:focus-visible") &&
      !touched && open(event.target));
    on(element, "focusout", scheduleClose);
    on(element, "click", (event) => {
      const target = anchorAt(event);
      if (!target) return;
      const { message: currentMessage, shown: card } = latest.current;
      const byTouch = touched && event.detail > 0;
      touched = false;
      if (byTouch && !(card?.target === target && card.tapped)) open(target, true);
      else if (target.matches(".cite")) {
        close();
        openSource(currentMessage, Number(target.dataset.n), checkIndexOf(target));
      }
    });
    on(document, "keydown", (event) => {
      if (event.key !== "Escape" || !latest.current.shown) return;
      event.preventDefault();
      close();
    }, { capture: true });
    on(document, "pointerdown", (event) => {
      if (latest.current.shown && !event.target.closest?.(".source-card, .cite, .bare")) close();
    });
    on(document, "scroll", close, { capture: true, passive: true });
    on(window, "resize", close);
    return () => { controller.abort(); cancelClose(); };
  }, []);

  if (!shown?.target.isConnected) return null;
  return html`<${CardView} key=${shown.target} ...${shown} message=${message} onStay=${cancelClose}
    onLeave=${scheduleClose} onClose=${close} />`;
}

function CardView({ target, tapped, message, onStay, onLeave, onClose }) {
  const cardRef = useRef(null);
  useLayoutEffect(() => {
    positionCard(cardRef.current, target.getBoundingClientRect());
    target.setAttribute("aria-describedby", "source-card");
    return () => target.removeAttribute("aria-describedby");
  }, [target]);
  const isCite = target.matches(".cite");
  const n = Number(target.dataset.n);
  const open = () => { onClose(); openSource(message, n, checkIndexOf(target)); };
  return html`<div class="source-card" id="source-card" ref=${cardRef} role=${tapped ? "group" : "tooltip"}
    onPointerEnter=${onStay} onPointerLeave=${(event) => event.pointerType !== "touch" && onLeave()}>
    ${isCite ? html`<${PassageExcerpt} message=${message} n=${n} check=${checkIndexOf(target)}
      cited=${citedBy(target)} />`
      : html`<p>${unsupportedReason(citedBy(target))}</p>`}
    ${tapped && isCite && html`<button type="button" class="button small" onClick=${open}>${t("cite.open")}</button>`}
  </div>`;
}

/** File, place and first words of a passage; of the lines that support the sentence where they are known. */
function PassageExcerpt({ message, n, check, cited }) {
  const passage = message.passages.find((item) => item.n === n)?.passage;
  if (!passage) return html`<p>${t("cite.hidden")}</p>`;
  const support = message.checks[check]?.support.find((span) => span.n === n);
  const supporting = support && splitAtSpans(passage.text, [[support.start, support.end]]).find((part) => part.marked);
  const excerpt = (supporting?.text ?? passage.text).replace(/\s+/g, " ").trim();
  const wrongCitations = check === null ? [] : cited.filter((other) => !shownInCheck(message, check).includes(other));
  return html`
    <p class="card-where"><b>${[passage.file, ...passage.heading.slice(-1)].join(" › ")}</b>
      ${locationLabel(passage) && html` <span>${locationLabel(passage)}</span>`}</p>
    <p class="card-words" dir="auto">${excerpt.length > EXCERPT_CHARS 
      ? `${excerpt.slice(0, EXCERPT_CHARS).trimEnd()}…` : excerpt}</p>
    ${check !== null && !cited.length && html`<p class="card-note">${t("cite.added")}</p>`}
    ${wrongCitations.length > 0 && html`<p class="card-note">${t(cited.includes(n) ? "cite.also" : "cite.corrected",
      { list: formatCitations(wrongCitations) })}</p>`}`;
}

const checkIndexOf = (target) => (target.dataset.c === undefined ? null : Number(target.dataset.c));
const citedBy = (target) => (target.dataset.cited ? target.dataset.cited.split(",").map(Number) : []);
const shownInCheck = (message, check) => message.checks[check]?.marks.flatMap((mark) => mark.shown) ?? [];

/** Below the citation, or above it where there is no room; never beyond the window. */
function positionCard(element, anchor) {
  const gap = 6;
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = anchor.bottom + gap + height <= innerHeight;
  element.style.top = `${Math.max(gap, below ? anchor.bottom + gap : anchor.top - gap - height)}px`;
  element.style.left = `${Math.max(gap, Math.min(anchor.left, innerWidth - width - gap))}px`;
}
