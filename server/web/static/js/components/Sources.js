// Under an answer: the passages it was given, or that there were none; and the dialog of one passage.
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { dialog } from "../state.js";
import { Dialog } from "./Dialog.js";

export function openSource(message, n) {
  const at = message.passages.findIndex((item) => item.n === n);
  if (at >= 0) dialog.value = { kind: "source", passages: message.passages, at };
}

export function Sources({ message }) {
  if (!message.searched) return null;
  const folders = message.folders.join(", ");
  if (!message.passages.length) {
    return html`<p class="searched"><${Icon} name="book" size=${14} />${t("source.nothing", { folders })}</p>`;
  }
  const cited = new Set(message.citations.map((citation) => citation.n));
  return html`<section class="sources" aria-label=${t("source.title")}>
    <ul>${message.passages.map((item) => html`<li key=${item.n}>
      <button type="button" class=${cx("source", cited.has(item.n) && "cited")}
        onClick=${() => openSource(message, item.n)}
        title=${t(cited.has(item.n) ? "source.cited" : "source.given")}>
        <b>${item.n}</b><span>${labelOf(item)}</span>
      </button></li>`)}</ul>
    ${message.dropped > 0 && html`<p class="hint">${t("source.dropped", { n: message.dropped })}</p>`}
    ${message.invalid_citations.length > 0 &&
    html`<p class="hint warn">
      ${t("source.invalid", { list: message.invalid_citations.map((n) => `[${n}]`).join(" ") })}</p>`}
  </section>`;
}

/** "refunds.md › Returns, lines 3-9" */
export function labelOf({ passage }) {
  const where = [passage.file, ...passage.heading].join(" › ");
  const place = placeOf(passage);
  return place ? `${where}, ${place}` : where;
}

function placeOf(passage) {
  if (passage.page != null) return t("source.page", { n: passage.page });
  if (passage.line_start == null) return "";
  const { line_start: from, line_end: to } = passage;
  if (to == null || to === from) return t("source.line", { n: from });
  return t("source.lines", { from, to });
}

export function SourceDialog({ passages, at }) {
  const { n, passage } = passages[at];
  const to = (index) => (dialog.value = { kind: "source", passages, at: index });
  return html`<${Dialog} title=${`[${n}] ${passage.file}`} wide>
    <dl class="facts">
      <div><dt>${t("source.folder")}</dt><dd>${passage.folder}</dd></div>
      ${passage.heading.length > 0 && html`<div><dt>${t("source.heading")}</dt><dd>${passage.heading.join(" › ")}</dd>
        </div>`}
      ${placeOf(passage) && html`<div><dt>${t("source.place")}</dt><dd>${placeOf(passage)}</dd></div>`}
      ${passage.score > 0 && html`<div><dt>${t("source.score")}</dt><dd>${passage.score.toFixed(2)}</dd></div>`}
    </dl>
    <div class="passage" tabindex="0" dir="auto">${passage.text}</div>
    ${passages.length > 1 && html`<div class="dialog-actions spread">
      <button type="button" class="button" disabled=${at === 0} onClick=${() => to(at - 1)}><${Icon} name="left"
        size=${16} />${t("source.previous")}</button>
      <button type="button" class="button" disabled=${at === passages.length - 1}
        onClick=${() => to(at + 1)}>${t("source.next")}<${Icon} name="right" size=${16} /></button>
    </div>`}
  </${Dialog}>`;
}
