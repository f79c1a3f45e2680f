// Under an answer: the passages it was given, or that there were none, and what came of its citations.
import { isUnsupported, marksOf } from "../checks.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { labelOf, openSource } from "../sources.js";

export function Sources({ message }) {
  if (!message.searched) return null;
  const found = message.passages.length > 0;
  const invalid = message.invalid_citations;
  return html`
    ${message.unread > 0 && html`<p class="searched"><${Icon} name="clock" size=${14} />
      ${t("source.unread", { n: message.unread })}</p>`}
    ${!found && message.folders.length > 0 && html`<p class="searched"><${Icon} name="book" size=${14} />
      ${t("source.nothing", { folders: message.folders.join(", ") })}</p>`}
    ${(found || invalid.length > 0) && html`<section class="sources" aria-label=${t("source.title")}>
      ${found && html`<${Chips} message=${message} />`}
      ${message.dropped > 0 && html`<p class="hint">${t("source.dropped", { n: message.dropped })}</p>`}
      <${Checked} checks=${message.checks} />
      ${invalid.length > 0 && html`<p class="hint warn">${t("source.invalid", { list: marksOf(invalid) })}</p>`}
    </section>`}`;
}

function Chips({ message }) {
  const cited = new Set(message.citations.map((citation) => citation.n));
  return html`<ul>${message.passages.map((item) => html`<li key=${item.n}>
    <button type="button" class=${cx("source", cited.has(item.n) && "cited")}
      onClick=${() => openSource(message, item.n)} title=${t(cited.has(item.n) ? "source.cited" : "source.given")}>
      <b>${item.n}</b><span>${labelOf(item)}</span>
    </button></li>`)}</ul>`;
}

/** How many sentences nothing carries, and how many citations were corrected. */
function Checked({ checks }) {
  const bare = checks.filter(isUnsupported).length;
  const corrected = checks.filter(({ verdict }) => verdict === "corrected").length;
  if (!bare && !corrected) return null;
  return html`<p class="hint checked">
    ${bare > 0 && html`<span class="key">${t("source.bare", { n: bare })}</span>`}
    ${corrected > 0 && html`<span>${t("source.corrected", { n: corrected })}</span>`}
  </p>`;
}
