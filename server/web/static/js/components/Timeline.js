// The versions of one fact over time, such as where the user lived and lives now.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api.js";
import { date, day } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { isPast, validityLabel } from "../validity.js";
import { ListState } from "./controls.js";

export function Timeline({ memory }) {
  const [history, setHistory] = useState({ state: "loading", items: [], error: "" });
  const load = async () => {
    try {
      const { memories: items } = await call("GET", `/api/memories/${memory.id}/history`);
      setHistory({ state: "ready", items, error: "" });
    } catch (error) {
      setHistory({ state: "error", items: [], error: error.message });
    }
  };
  useEffect(() => { load(); }, [memory.id, memory.updated_at]);
  return html`<div class="timeline">
    <${ListState} state=${history.state} error=${history.error} onRetry=${load} lines=${2} />
    <ol aria-label=${t("memory.history")}>${history.items.map((entry) => html`<${Entry} key=${entry.id} entry=${entry}
      all=${history.items} />`)}</ol>
  </div>`;
}

function Entry({ entry, all }) {
  const isOutdated = isPast(entry);
  const replacement = entry.replaced_by && all.find((other) => other.id === entry.replaced_by);
  return html`<li class=${cx("moment", isOutdated && "past")}>
    <p dir="auto">${entry.text} ${!isOutdated && html`<span class="state indexed">${t("memory.now")}</span>`}</p>
    <dl>
      ${validityLabel(entry) && html`<div><dt>${t("memory.valid")}</dt><dd>${validityLabel(entry)}</dd></div>`}
      <div><dt>${t("memory.noted")}</dt><dd title=${date(entry.created_at)}>${day(entry.created_at)}</dd></div>
      ${entry.last_used && html`<div><dt>${t("memory.last_used")}</dt><dd
        title=${date(entry.last_used)}>${day(entry.last_used)}</dd></div>`}
      ${entry.subject && html`<div><dt>${t("memory.about")}</dt><dd>${entry.subject}</dd></div>`}
      ${entry.confidence < 1 && html`<div><dt>${t("memory.read_by_model")}</dt></div>`}
      ${replacement && html`<div><dt>${t("memory.replaced_by")}</dt><dd>${replacement.text}</dd></div>`}
    </dl>
  </li>`;
}
