// Generations of the index, newest first: what changed in each, and the way back.
import { useEffect, useState } from "preact/hooks";
import { date, number } from "../format.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { history, knowledge, loadHistory, rebuild, rollBack } from "../knowledge.js";
import { dialog } from "../state.js";
import { ListState } from "./controls.js";

const NAMED = 4; // files of a generation that are shown at first

export function History() {
  const [open, setOpen] = useState(false);
  return html`<details class="section history" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${t("history.title")}</summary>
    ${open && html`<${Generations} />`}
  </details>`;
}

function Generations() {
  const { state, generations, error } = history.value;
  const { generation, building, held } = knowledge.value;
  useEffect(() => { loadHistory(); }, [generation, building, held]);
  const ask = () => (dialog.value = {
    kind: "confirm", title: t("history.rebuild_title"), text: t("history.rebuild_text"),
    action: t("history.rebuild"), run: rebuild,
  });
  return html`
    <${ListState} state=${state} error=${error} onRetry=${loadHistory}
      empty=${state === "ready" && generations.length === 0 && t("history.empty")} />
    <ol class="generations">${generations.map((made, at) => html`<${Generation} key=${made.number} made=${made}
      current=${at === 0} mayGo=${at > 0 && !building} />`)}</ol>
    ${state === "ready" && html`<button type="button" class="button small" disabled=${building}
      onClick=${ask}>${t("history.rebuild")}</button>`}`;
}

function Generation({ made, current, mayGo }) {
  const [all, setAll] = useState(false);
  const told = all ? made.told : made.told.slice(0, NAMED);
  const more = Math.max(made.added + made.changed + made.removed, made.told.length) - told.length;
  const from = made.cause.startsWith("rollback:") ? made.cause.slice(9) : "";
  const counts = ["added", "changed", "removed"].filter((what) => made[what] > 0)
    .map((what) => t(`history.${what}`, { n: number(made[what]) }));
  const go = () => (dialog.value = {
    kind: "confirm", title: t("history.go_title", { n: made.number }),
    text: t("history.go_text", { date: date(made.at) }), action: t("history.go"), run: () => rollBack(made.number),
  });
  return html`<li class=${cx("generation", current && "current")}>
    <div class="generation-head"><strong>${t("history.number", { n: made.number })}</strong>
      ${current && html`<span class="state indexed">${t("history.now")}</span>`}
      <time datetime=${new Date(made.at * 1000).toISOString()}>${date(made.at)}</time></div>
    ${from && html`<p>${t("history.back", { n: from })}</p>`}
    <p class="generation-facts">${[...counts, made.files >= 0 && t("history.size", {
      files: number(made.files), chunks: number(made.chunks) })].filter(Boolean).join(" · ") || t("history.same")}</p>
    ${told.length > 0 && html`<ul class="told">${told.map(({ what, file }) => html`<li key=${file}
      class=${what}><span class="unseen">${t(`history.${what}`, { n: "" })}: </span>${file}</li>`)}
      ${more > 0 && html`<li>${made.told.length > told.length
        ? html`<button type="button" class="link" onClick=${() => setAll(true)}>${t("history.more", { n: number(more) })}</button>`
        : t("history.more", { n: number(more) })}</li>`}</ul>`}
    ${mayGo && html`<button type="button" class="button small" aria-label=${t("history.go_long", { n: made.number })}
      onClick=${go}>${t("history.go")}</button>`}
  </li>`;
}
