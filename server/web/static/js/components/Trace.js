// "Why these sources?": the candidates of a search, how each was found and what became of it, in plain words.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api.js";
import { decimal, number, percent } from "../format.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { dialog } from "../state.js";
import { ListState } from "./controls.js";
import { Dialog } from "./Dialog.js";
import { labelOf } from "../sources.js";

/** Under an answer whose domain has knowledge. */
export function WhySources({ message }) {
  if (!message.searched || message.status === "streaming") return null;
  return html`<button type="button" class="link why-sources"
    onClick=${() => (dialog.value = { kind: "trace", id: message.id })}>
    ${t(message.passages.length ? "trace.why" : "trace.why_not")}</button>`;
}

export function TraceDialog({ id }) {
  const [held, setHeld] = useState({ state: "loading" });
  const load = async () => {
    setHeld({ state: "loading" });
    try {
      setHeld({ state: "ready", trace: await call("GET", `/api/messages/${encodeURIComponent(id)}/trace`) });
    } catch (error) {
      setHeld({ state: "error", error: error.message });
    }
  };
  useEffect(() => { load(); }, [id]);
  return html`<${Dialog} title=${t("trace.title")} wide>
    <${ListState} state=${held.state} error=${held.error} onRetry=${load} lines=${6} />
    ${held.trace && html`<${Trace} trace=${held.trace} />`}
  </${Dialog}>`;
}

export function Trace({ trace }) {
  const { queries, candidates } = trace;
  if (!queries.length) return html`<p>${t("trace.courtesy")}</p>`;
  return html`<div class="trace">
    <${Story} trace=${trace} />
    ${candidates.length === 0 ? html`<p class="empty">${t("trace.no_candidates")}</p>`
      : html`<table><thead><tr>
        ${["rank", "source", "meaning", "words", "together", "let_through", "became"].map((name) => html`<th key=${name}
          scope="col">${t(`trace.${name}`)}</th>`)}</tr></thead>
        <tbody>${candidates.map((one) => html`<${Candidate} key=${one.id} one=${one} />`)}</tbody></table>`}
    <p class="hint">${t("trace.generation", { n: trace.generation })}</p>
  </div>`;
}

function Story({ trace }) {
  const { folders, rows, queries, dense_weight: dense, min_similarity: similarity, min_coverage: coverage } = trace;
  const where = folders.join(", ") || t("trace.nowhere");
  return html`<p>${t("trace.compared", { n: rows, count: number(rows), folders: where })}
    ${" "}${dense > 0 ? t("trace.weights", { dense: percent(dense), words: percent(1 - dense) }) : t("trace.words_only")}
    ${" "}${t("trace.gate", { similarity: percent(similarity), coverage: percent(coverage) })}</p>
    ${queries.length > 1 && html`<p>${t("trace.earlier")} <q>${queries[1]}</q></p>`}`;
}

function Candidate({ one }) {
  const passage = { file: one.file, heading: one.heading, page: one.page,
    line_start: one.line_start, line_end: one.line_end };
  return html`<tr class=${cx(one.fate === "used" ? "used" : "left")}>
    <td class="rank" data-label=${t("trace.rank")}>${one.fused_rank}</td>
    <td class="what"><b>${one.folder} › ${labelOf({ passage })}</b><span dir="auto">${one.text}</span></td>
    <${Score} label=${t("trace.meaning")} value=${one.dense} rank=${one.dense_rank} />
    <${Score} label=${t("trace.words")} value=${one.lexical} rank=${one.lexical_rank} />
    <${Score} label=${t("trace.together")} value=${one.fused}
      note=${one.reranked != null && t("trace.reranked", { n: decimal(one.reranked, 2) })} />
    <td data-label=${t("trace.let_through")}>${t(`gate.${one.gate || "none"}`)}</td>
    <td class="fate" data-label=${t("trace.became")}>${t(`fate.${one.fate.replaceAll(" ", "_")}`)}</td>
  </tr>`;
}

function Score({ label, value, rank, note }) {
  if (value == null) return html`<td class="score" data-label=${label}><span>${t("trace.not_compared")}</span></td>`;
  return html`<td class="score" data-label=${label}><meter min="0" max="1" value=${Math.min(1, Math.max(0, value))}
    aria-hidden="true"></meter><span>${decimal(value, 2)}${rank != null && html`<small>${t("trace.place", {
    n: number(rank) })}</small>`}${note && html`<small>${note}</small>`}</span></td>`;
}
