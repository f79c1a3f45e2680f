// Under an answer: the passages in its prompt, or that none were found, and the result of the citation checks.
import { formatCitations, isUnsupported } from "../checks.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { openSource, sourceLabel } from "../sources.js";

export function Sources({ message }) {
  if (!message.searched) return null;
  const hasPassages = message.passages.length > 0;
  const invalid = message.invalid_citations;
  return html`
    ${message.unread > 0 && html`<p class="searched"><${Icon} name="clock" size=${14} />
      ${t("source.unread", { n: message.unread })}</p>`}
    ${!hasPassages && message.folders.length > 0 && html`<p class="searched"><${Icon} name="book" size=${14} />
      ${t("source.nothing", { folders: message.folders.join(", ") })}</p>`}
    ${(hasPassages || invalid.length > 0) && html`<section class="sources" aria-label=${t("source.title")}>
      ${hasPassages && html`<${SourceChips} message=${message} />`}
      ${message.dropped > 0 && html`<p class="hint">${t("source.dropped", { n: message.dropped })}</p>`}
      <${CheckSummary} checks=${message.checks} />
      ${invalid.length > 0 && html`<p class="hint warn">${t("source.invalid", { list: formatCitations(invalid) })}</p>`}
    </section>`}`;
}

function SourceChips({ message }) {
  const cited = new Set(message.citations.map((citation) => citation.n));
  return html`<ul>${message.passages.map((item) => html`<li key=${item.n}>
    <button type="button" class=${cx("source", cited.has(item.n) && "cited")}
      onClick=${() => openSource(message, item.n)} title=${t(cited.has(item.n) ? "source.cited" : "source.given")}>
      <b>${item.n}</b><span>${sourceLabel(item)}</span>
    </button></li>`)}</ul>`;
}

/** How many sentences no source supports, and how many citations were corrected. */
function CheckSummary({ checks }) {
  const unsupported = checks.filter(isUnsupported).length;
  const corrected = checks.filter(({ verdict }) => verdict === "corrected").length;
  if (!unsupported && !corrected) return null;
  return html`<p class="hint checked">
    ${unsupported > 0 && html`<span class="key">${t("source.unsupported", { n: unsupported })}</span>`}
    ${corrected > 0 && html`<span>${t("source.corrected", { n: corrected })}</span>`}
  </p>`;
}
