// What a citation points to, or why a sentence is marked, in a small card beside it: on hover, on focus, at a tap.
// A click opens the passage; at a tap the card comes first, with a button that opens it.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { marksOf, pieces } from "../checks.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { whyBare } from "../markdown.js";
import { openSource, placeOf } from "../sources.js";

const WORDS = 180;    // characters of a passage
const PATIENCE = 160; // milliseconds in which the pointer may go from the citation to the card

export function SourceCard({ root, message }) {
  const [shown, setShown] = useState(null); // {target, tapped}
  const held = useRef({ message, shown });
  held.current = { message, shown };
  const leaving = useRef(0);

  const close = () => { clearTimeout(leaving.current); setShown(null); };
  const stay = () => clearTimeout(leaving.current);
  const leave = () => { stay(); leaving.current = setTimeout(close, PATIENCE); };

  useEffect(() => {
    const element = root.current;
    const stopping = new AbortController();
    const on = (target, type, run, more) => target.addEventListener(type, run, { signal: stopping.signal, ...more });
    const markAt = (event) => event.target.closest?.(".cite, .bare");
    const open = (target, tapped = false) => { stay(); setShown({ target, tapped }); };
    let touched = false;

    on(element, "pointerdown", (event) => (touched = event.pointerType === "touch"));
    on(element, "pointerover", (event) => {
      const target = event.pointerType !== "touch" && markAt(event);
      if (target?.matches(".cite")) open(target); // a marked sentence has its title
    });
    on(element, "pointerout", (event) => event.pointerType !== "touch" && markAt(event) && leave());
    on(element, "focusin", (event) => event.target.matches(".cite:focus-visible, .bare:focus-visible") &&
      !touched && open(event.target));
    on(element, "focusout", leave);
    on(element, "click", (event) => {
      const target = markAt(event);
      if (!target) return;
      const { message: now, shown: card } = held.current;
      const byTouch = touched && event.detail > 0;
      touched = false;
      if (byTouch && !(card?.target === target && card.tapped)) open(target, true);
      else if (target.matches(".cite")) {
        close();
        openSource(now, Number(target.dataset.n), checkOf(target));
      }
    });
    on(document, "keydown", (event) => {
      if (event.key !== "Escape" || !held.current.shown) return;
      event.preventDefault();
      close();
    }, { capture: true });
    on(document, "pointerdown", (event) => {
      if (held.current.shown && !event.target.closest?.(".source-card, .cite, .bare")) close();
    });
    on(document, "scroll", close, { capture: true, passive: true });
    on(window, "resize", close);
    return () => { stopping.abort(); stay(); };
  }, []);

  if (!shown?.target.isConnected) return null;
  return html`<${Card} key=${shown.target} ...${shown} message=${message} onStay=${stay} onLeave=${leave}
    onClose=${close} />`;
}

function Card({ target, tapped, message, onStay, onLeave, onClose }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    place(box.current, target.getBoundingClientRect());
    target.setAttribute("aria-describedby", "source-card");
    return () => target.removeAttribute("aria-describedby");
  }, [target]);
  const isCite = target.matches(".cite");
  const n = Number(target.dataset.n);
  const open = () => { onClose(); openSource(message, n, checkOf(target)); };
  return html`<div class="source-card" id="source-card" ref=${box} role=${tapped ? "group" : "tooltip"}
    onPointerEnter=${onStay} onPointerLeave=${(event) => event.pointerType !== "touch" && onLeave()}>
    ${isCite ? html`<${Where} message=${message} n=${n} check=${checkOf(target)} cited=${citedIn(target)} />`
      : html`<p>${whyBare(citedIn(target))}</p>`}
    ${tapped && isCite && html`<button type="button" class="button small" onClick=${open}>${t("cite.open")}</button>`}
  </div>`;
}

/** File, place and first words of a passage; of the lines that carry the sentence where they are known. */
function Where({ message, n, check, cited }) {
  const passage = message.passages.find((item) => item.n === n)?.passage;
  if (!passage) return html`<p>${t("cite.hidden")}</p>`;
  const support = message.checks[check]?.support.find((one) => one.n === n);
  const lines = support && pieces(passage.text, [[support.start, support.end]]).find((piece) => piece.marked);
  const words = (lines?.text ?? passage.text).replace(/\s+/g, " ").trim();
  const wrong = check === null ? [] : cited.filter((other) => !shownBeside(message, check).includes(other));
  return html`
    <p class="card-where"><b>${[passage.file, ...passage.heading.slice(-1)].join(" › ")}</b>
      ${placeOf(passage) && html` <span>${placeOf(passage)}</span>`}</p>
    <p class="card-words" dir="auto">${words.length > WORDS ? `${words.slice(0, WORDS).trimEnd()}…` : words}</p>
    ${check !== null && !cited.length && html`<p class="card-note">${t("cite.added")}</p>`}
    ${wrong.length > 0 && html`<p class="card-note">${t(cited.includes(n) ? "cite.also" : "cite.corrected",
      { list: marksOf(wrong) })}</p>`}`;
}

const checkOf = (target) => (target.dataset.c === undefined ? null : Number(target.dataset.c));
const citedIn = (target) => (target.dataset.cited ? target.dataset.cited.split(",").map(Number) : []);
const shownBeside = (message, check) => message.checks[check]?.marks.flatMap((mark) => mark.shown) ?? [];

/** Below the citation, or above it where there is no room; never beyond the window. */
function place(box, anchor) {
  const gap = 6;
  const { offsetWidth: width, offsetHeight: height } = box;
  const below = anchor.bottom + gap + height <= innerHeight;
  box.style.top = `${Math.max(gap, below ? anchor.bottom + gap : anchor.top - gap - height)}px`;
  box.style.left = `${Math.max(gap, Math.min(anchor.left, innerWidth - width - gap))}px`;
}
