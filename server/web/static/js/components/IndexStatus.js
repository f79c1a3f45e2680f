// The status of the index, above the folders: import progress, a pinned generation, problems.
import { number } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { followFiles, knowledge } from "../knowledge.js";
import { may } from "../state.js";

export function IndexStatus() {
  const { state, busy, progress, held, pending, building, problem, missing, limited, folders } = knowledge.value;
  if (state !== "ready") return null;
  const listedNames = new Set(folders.map((folder) => folder.name));
  const unlisted = limited.filter((limit) => limit.problem && !listedNames.has(limit.folder));
  return html`
    ${problem && html`<div class="notice error" role="alert"><${Icon} name="alert" size=${16} />
      <span><strong>${t("index.problem")}</strong>${problem}<br />${t("index.retried")}</span></div>`}
    ${missing.map((one) => html`<div key=${one.folder} class="notice warning" role="status"><${Icon} name="alert" size=${16} />
      <span><strong>${one.folder ? t("index.missing", { folder: one.folder }) : t("index.missing_all")}</strong>${one.reason}<br
        />${t("index.kept")}</span></div>`)}
    ${held != null && html`<div class="notice warning held" role="status"><${Icon} name="clock" size=${16} />
      <span><strong>${t("index.held", { n: held })}</strong>${pending > 0 && t("index.pending", { n: pending })}</span>
      ${may("knowledge:write") && html`<button type="button" class="button small"
        onClick=${followFiles}>${t("index.follow")}</button>`}
    </div>`}
    ${unlisted.map((limit) => html`<div key=${limit.folder} class="notice warning"><${Icon} name="lock" size=${16} />
      <span><strong>${t("index.hidden", { folder: limit.folder })}</strong>${limit.problem}</span></div>`)}
    ${building && html`<p class="phase" role="status"><span class="dots"
      aria-hidden="true"></span><span>${t("index.building")}</span></p>`}
    ${progress ? html`<${Progress} progress=${progress} />`
      : busy && !building && html`<p class="phase" role="status"><span class="dots"
        aria-hidden="true"></span>${t("knowledge.busy")}</p>`}`;
}

function Progress({ progress }) {
  const { files, of_files: totalFiles, bytes, of_bytes: totalBytes, left_s: secondsLeft } = progress;
  const label = t("index.progress", { files: number(files), of: number(totalFiles) });
  return html`<div class="import">
    <progress max=${totalBytes || 1} value=${bytes} aria-label=${t("knowledge.busy")}></progress>
    <p><span>${label}</span>${secondsLeft != null
      && html`<span>${t("index.left", { seconds: durationLabel(secondsLeft) })}</span>`}</p>
  </div>`;
}

/** Rounded up: "0 seconds left" is never true. */
function durationLabel(seconds) {
  return seconds < 90 ? t("index.seconds", { n: Math.max(1, Math.ceil(seconds)) })
    : t("index.minutes", { n: Math.ceil(seconds / 60) });
}
