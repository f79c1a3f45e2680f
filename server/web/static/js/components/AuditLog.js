// The audit log: who did what, the newest first, a page at a time.
import { useEffect, useState } from "preact/hooks";
import { date } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { auditLog, loadAudit } from "../people.js";
import { ListState } from "./controls.js";

const COMMAND_LINE = "command line"; // the address of what is done there

export function AuditLog() {
  const [busy, setBusy] = useState(false);
  useEffect(() => { loadAudit(); }, []);
  const { state, error, entries, next } = auditLog.value;
  const more = async () => {
    setBusy(true);
    await loadAudit({ more: true });
    setBusy(false);
  };
  return html`
    <${ListState} state=${state} error=${error} onRetry=${loadAudit}
      empty=${state === "ready" && entries.length === 0 && t("audit.empty")} />
    ${state === "ready" && error && html`<div class="notice error" role="alert"><span>${error}</span></div>`}
    <ol class="audit">${entries.map((entry) => html`<li key=${entry.id}>
      <p><strong>${actorName(entry)}</strong> ${actionName(entry.action)} <span
        class="audit-target">${entry.target}</span></p>
      <small>${date(entry.at)}${place(entry)}${details(entry.detail)}</small>
    </li>`)}</ol>
    ${next !== null && html`<button type="button" class="button small" disabled=${busy}
      onClick=${more}>${t("audit.more")}</button>`}`;
}

const place = ({ address }) => (address && address !== COMMAND_LINE ? ` · ${address}` : "");
const actorName = (entry) =>
  entry.actor || t(entry.address === COMMAND_LINE ? "audit.command_line" : "audit.nobody");

/** An action that has no words yet is shown by its name. */
function actionName(action) {
  const key = `audit.${action.replace(".", "_")}`;
  return t(key) === key ? action : t(key);
}

const details = (detail) => Object.entries(detail)
  .filter(([name]) => name !== "folder")
  .map(([name, value]) => ` · ${name}: ${Array.isArray(value) ? value.join(", ") : value}`)
  .join("");
