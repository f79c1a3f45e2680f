// One question or one answer, with its route, sources, receipts and actions.
import { useState } from "preact/hooks";
import { editQuestion, regenerateAnswer } from "../actions.js";
import { copyText } from "../clipboard.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { dialog } from "../state.js";
import { siblings } from "../tree.js";
import { AnswerText } from "./AnswerText.js";
import { IconButton, InlineEdit } from "./controls.js";
import { Failure } from "./Failure.js";
import { answeredWithoutModel, UsageLine } from "./UsageLine.js";
import { Receipts } from "./Receipts.js";
import { RouteLine } from "./RouteLine.js";
import { Sources } from "./Sources.js";
import { WhySources } from "./Trace.js";

export function Question({ thread, messageSignal }) {
  const message = messageSignal.value;
  const [editing, setEditing] = useState(false);
  if (editing) {
    const save = (text) => { setEditing(false); editQuestion(thread, message, text); };
    return html`<article class="question editing" aria-label=${t("message.yours")}>
      <${InlineEdit} multiline value=${message.text} label=${t("message.edit")} onSave=${save}
        onCancel=${() => setEditing(false)} />
      <p class="hint">${t("message.edit_hint")}</p>
    </article>`;
  }
  return html`<article class="question" aria-label=${t("message.yours")} data-message=${message.id} tabindex="-1">
    <div class="bubble" dir="auto">${message.text}</div>
    <div class="tools">
      <${VersionSwitcher} thread=${thread} id=${message.id} />
      <${CopyButton} text=${message.text} />
      <${IconButton} icon="edit" label=${t("message.edit")} size=${16} disabled=${thread.busy.value}
        onClick=${() => setEditing(true)} />
    </div>
  </article>`;
}

export function Answer({ thread, messageSignal }) {
  const message = messageSignal.value;
  const streaming = message.status === "streaming";
  return html`<article class="answer" aria-label=${t("message.answer")} aria-busy=${streaming}
    data-message=${message.id} tabindex="-1">
    <${RouteLine} message=${message} />
    ${message.notice && html`<p class="notice warning" role="note"><${Icon} name="alert" size=${16} />
      <span>${message.notice}</span></p>`}
    ${message.reasoning && html`<${Reasoning} message=${message} />`}
    ${message.text && html`<${AnswerText} message=${message} />`}
    ${streaming && html`<${Phase} message=${message} />`}
    ${message.error && html`<${Failure} error=${message.error} onRetry=${() => regenerateAnswer(thread, message)} />`}
    <${EndNotes} message=${message} />
    <${Sources} message=${message} />
    <${WhySources} message=${message} />
    <${Receipts} message=${message} />
    ${!streaming && html`<${AnswerFooter} thread=${thread} message=${message} />`}
  </article>`;
}

function Reasoning({ message }) {
  const thinking = message.status === "streaming" && !message.text;
  return html`<details class="reasoning">
    <summary>${t(thinking ? "reasoning.now" : "reasoning.done")}</summary>
    <div class="reasoning-text" dir="auto">${message.reasoning}</div>
  </details>`;
}

/** What happens while there is nothing to read yet. */
function Phase({ message }) {
  if (message.phase === "writing") return null;
  const text = message.phase === "queued" ? t("phase.queued", { n: message.position })
    : t(`phase.${message.phase || "routing"}`);
  return html`<p class="phase"><span class="dots" aria-hidden="true"></span>${text}</p>`;
}

/** Why the answer ends where it ends, when that is not by itself. */
function EndNotes({ message }) {
  const notes = [];
  if (message.status === "stopped") notes.push(t("ending.stopped"));
  if (message.status === "interrupted") notes.push(t("ending.interrupted"));
  if (message.status === "complete" && message.finish_reason === "length") notes.push(t("ending.length"));
  const turns = message.prompt?.trimmed_turns ?? 0;
  const evidence = message.prompt?.trimmed_evidence ?? 0;
  if (turns) notes.push(t("ending.trimmed_turns", { n: turns }));
  if (evidence) notes.push(t("ending.trimmed_evidence", { n: evidence }));
  if (!notes.length) return null;
  return html`<ul class="ending">${notes.map((note) => html`<li key=${note}>${note}</li>`)}</ul>`;
}

function AnswerFooter({ thread, message }) {
  return html`<footer class="tools">
    <${VersionSwitcher} thread=${thread} id=${message.id} />
    ${message.text && html`<${CopyButton} text=${message.text} />`}
    <${IconButton} icon="redo" label=${t("message.regenerate")} size=${16} disabled=${thread.busy.value}
      onClick=${() => regenerateAnswer(thread, message)} />
    ${!answeredWithoutModel(message) && html`<${IconButton} icon="eye" label=${t("prompt.open")} size=${16}
      onClick=${() => (dialog.value = { kind: "prompt", id: message.id })} />`}
    <${UsageLine} message=${message} />
  </footer>`;
}

function VersionSwitcher({ thread, id }) {
  const { ids, index } = siblings(thread.nodes.value, id);
  if (ids.length < 2) return null;
  const showVersion = (step) => thread.showBranchOf(ids[index + step]);
  return html`<span class="siblings" role="group" aria-label=${t("message.versions")}>
    <${IconButton} icon="left" size=${14} label=${t("message.previous")} disabled=${index === 0}
      onClick=${() => showVersion(-1)} />
    <span>${index + 1}/${ids.length}</span>
    <${IconButton} icon="right" size=${14} label=${t("message.next")} disabled=${index === ids.length - 1}
      onClick=${() => showVersion(1)} />
  </span>`;
}

function CopyButton({ text }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    if (!(await copyText(text))) return;
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<${IconButton} icon=${copied ? "check" : "copy"} size=${16}
    label=${t(copied ? "action.copied" : "action.copy")} onClick=${copy} />`;
}
