// "Why these sources?": the candidates of a search, how each was found and what became of it, in plain words.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api.js";
import { decimal, number, percent } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { dialog } from "../state.js";
import { ListState } from "./controls.js";
import { Dialog } from "./Dialog.js";
import { sourceLabel } from "../sources.js";

/** Under an answer whose domain has knowledge. */
export function WhySources({ message }) {
  if (!message.searched && !message.folders.length || message.status === "streaming") return null;
  return html`<button type="button" class="link why-sources"
    onClick=${() => (dialog.value = { kind: "trace", id: message.id })}>
    ${t(message.passages.length ? "trace.why" : "trace.why_not")}</button>`;
}

export function TraceDialog({ id }) {
  const [loaded, setLoaded] = useState({ state: "loading" });
  const load = async () => {
    setLoaded({ state: "loading" });
    try {
      setLoaded({ state: "ready", trace: await call("GET", `/api/messages/${encodeURIComponent(id)}/trace`) });
    } catch (error) {
      setLoaded({ state: "error", error: error.message });
    }
  };
  useEffect(() => { load(); }, [id]);
  return html`<${Dialog} title=${t("trace.title")} wide>
    <${ListState} state=${loaded.state} error=${loaded.error} onRetry=${load} lines=${6} />
    ${loaded.trace && html`<${Trace} trace=${loaded.trace} />`}
  </${Dialog}>`;
}

export function Trace({ trace }) {
  const { queries, candidates } = trace;
  if (!queries.length) return html`<p>${t("trace.courtesy")}</p>`;
  return html`<div class="trace">
    <${TraceSummary} trace=${trace} />
    <${WhyNothing} trace=${trace} />
    ${candidates.length === 0 ? html`<p class="empty">${t("trace.no_candidates")}</p>`
      : html`<table><thead><tr>
        ${["rank", "source", "meaning", "words", "together", "let_through", "became"].map((name) => html`<th key=${name}
          scope="col">${t(`trace.${name}`)}</th>`)}</tr></thead>
        <tbody>${candidates.map((candidate) => html`<${Candidate}
          key=${candidate.id} candidate=${candidate} />`)}</tbody></table>`}
    <p class="hint">${t("trace.generation", { n: trace.generation })}</p>
  </div>`;
}

function TraceSummary({ trace }) {
  const { folders, rows, queries, dense_weight: denseWeight, min_likelihood: minLikelihood } = trace;
  const folderNames = folders.join(", ") || t("trace.nowhere");
  return html`<p>${t("trace.compared", { n: rows, count: number(rows), folders: folderNames })}
    ${" "}${denseWeight > 0 ? t("trace.weights", { dense: percent(denseWeight), words: percent(1 - denseWeight) })
      : t("trace.words_only")}
    ${minLikelihood != null && ` ${t("trace.gate", { likelihood: percent(minLikelihood) })}`}</p>
    ${queries.length > 1 && html`<p>${t("trace.earlier")} <q>${queries[1]}</q></p>`}`;
}

/** Why no passage was given, in a sentence. */
function WhyNothing({ trace }) {
  const { candidates, min_likelihood: minLikelihood } = trace;
  if (!candidates.length || candidates.some(({ fate }) => fate === "used" || fate === "no room")) return null;
  const best = Math.max(...candidates.map(({ likelihood }) => likelihood ?? 0));
  if (minLikelihood == null || best >= minLikelihood) return null;
  return html`<p class="why-nothing">${t("trace.nothing", { best: percent(best), least: percent(minLikelihood) })}</p>`;
}

function Candidate({ candidate }) {
  const passage = { file: candidate.file, heading: candidate.heading, page: candidate.page,
    line_start: candidate.line_start, line_end: candidate.line_end };
  return html`<tr class=${cx(candidate.fate === "used" ? "used" : "left")}>
    <td class="rank" data-label=${t("trace.rank")}>${candidate.fused_rank}</td>
    <td class="what"><b>${candidate.folder} › ${sourceLabel({ passage })}</b><span
      dir="auto">${candidate.text}</span></td>
    <${Score} label=${t("trace.meaning")} value=${candidate.dense} rank=${candidate.dense_rank} />
    <${Score} label=${t("trace.words")} value=${candidate.lexical} rank=${candidate.lexical_rank} />
    <${Score} label=${t("trace.together")} value=${candidate.fused}
      note=${candidate.reranked != null && t("trace.reranked", { n: decimal(candidate.reranked, 2) })} />
    <td data-label=${t("trace.let_through")}>${t(`gate.${candidate.gate || "none"}`)}${candidate.likelihood != null
      && html` <small>${percent(candidate.likelihood)}</small>`}</td>
    <td class="fate" data-label=${t("trace.became")}>${t(`fate.${candidate.fate.replaceAll(" ", "_")}`)}</td>
  </tr>`;
}

function Score({ label, value, rank, note }) {
  if (value == null) return html`<td class="score" data-label=${label}><span>${t("trace.not_compared")}</span></td>`;
  return html`<td class="score" data-label=${label}><meter min="0" max="1" value=${Math.min(1, Math.max(0, value))}
    aria-hidden="true"></meter><span>${decimal(value, 2)}${rank != null && html`<small>${t("trace.place", {
    n: number(rank) })}</small>`}${note && html`<small>${note}</small>`}</span></td>`;
}
