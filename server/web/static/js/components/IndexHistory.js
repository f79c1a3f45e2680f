// Generations of the index, newest first: what changed in each, and rolling back to one.
import { useEffect, useState } from "preact/hooks";
import { date, number } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { indexHistory, knowledge, loadIndexHistory, rebuildIndex, rollBackIndex } from "../knowledge.js";
import { dialog } from "../state.js";
import { ListState } from "./controls.js";

const FILES_SHOWN = 4; // files of a generation that are shown at first

export function IndexHistory() {
  const [open, setOpen] = useState(false);
  return html`<details class="section history" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
    <summary>${t("history.title")}</summary>
    ${open && html`<${Generations} />`}
  </details>`;
}

function Generations() {
  const { state, generations, error } = indexHistory.value;
  const { generation, building, held } = knowledge.value;
  useEffect(() => { loadIndexHistory(); }, [generation, building, held]);
  const confirmRebuild = () => (dialog.value = {
    kind: "confirm", title: t("history.rebuild_title"), text: t("history.rebuild_text"),
    action: t("history.rebuild"), onConfirm: rebuildIndex,
  });
  return html`
    <${ListState} state=${state} error=${error} onRetry=${loadIndexHistory}
      empty=${state === "ready" && generations.length === 0 && t("history.empty")} />
    <ol class="generations">${generations.map((item, index) => html`<${Generation} key=${item.number} generation=${item}
      current=${index === 0} canRollBack=${index > 0 && !building} />`)}</ol>
    ${state === "ready" && html`<button type="button" class="button small" disabled=${building}
      onClick=${confirmRebuild}>${t("history.rebuild")}</button>`}`;
}

function Generation({ generation, current, canRollBack }) {
  const [showAll, setShowAll] = useState(false);
  const shownFiles = showAll ? generation.told : generation.told.slice(0, FILES_SHOWN);
  const changedFiles = generation.added + generation.changed + generation.removed;
  const more = Math.max(changedFiles, generation.told.length) - shownFiles.length;
  const rolledBackTo = generation.cause.startsWith("rollback:") ? generation.cause.slice(9) : "";
  const counts = ["added", "changed", "removed"].filter((what) => generation[what] > 0)
    .map((what) => t(`history.${what}`, { n: number(generation[what]) }));
  const confirmRollBack = () => (dialog.value = {
    kind: "confirm", title: t("history.roll_back_title", { n: generation.number }),
    text: t("history.roll_back_text", { date: date(generation.at) }), action: t("history.roll_back"),
    onConfirm: () => rollBackIndex(generation.number),
  });
  return html`<li class=${cx("generation", current && "current")}>
    <div class="generation-head"><strong>${t("history.number", { n: generation.number })}</strong>
      ${current && html`<span class="state indexed">${t("history.now")}</span>`}
      <time datetime=${new Date(generation.at * 1000).toISOString()}>${date(generation.at)}</time></div>
    ${rolledBackTo && html`<p>${t("history.restored", { n: rolledBackTo })}</p>`}
    <p class="generation-facts">${[...counts, generation.files >= 0 && t("history.size", {
      files: number(generation.files), chunks: number(generation.chunks) })].filter(Boolean).join(" · ")
        || t("history.same")}</p>
    ${shownFiles.length > 0 && html`<ul class="told">${shownFiles.map(({ what, file }) => html`<li key=${file}
      class=${what}><span class="unseen">${t(`history.${what}`, { n: "" })}: </span>${file}</li>`)}
      ${more > 0 && html`<li>${generation.told.length > shownFiles.length
        ? html`<button type="button" class="link"
          onClick=${() => setShowAll(true)}>${t("history.more", { n: number(more) })}</button>`
        : t("history.more", { n: number(more) })}</li>`}</ul>`}
    ${canRollBack && html`<button type="button" class="button small"
      aria-label=${t("history.roll_back_to", { n: generation.number })}
      onClick=${confirmRollBack}>${t("history.roll_back")}</button>`}
  </li>`;
}
