// The message field: one draft per chat, Enter sends; with the domain picker and the context meter.
import { useLayoutEffect, useRef } from "preact/hooks";
import { sendMessage, stopAnswer } from "../actions.js";
import { draftOf, setDraft } from "../drafts.js";
import { number, percent } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { connection } from "../socket.js";
import { dialog, isNarrow, session } from "../state.js";
import { DomainPicker } from "./DomainPicker.js";
import { isTemporary, TemporaryNote } from "./Temporary.js";

const MAX_HEIGHT_PX = 240; // pixels
const coarsePointer = matchMedia("(pointer: coarse)"); // no Shift there, so Enter is a new line and the button sends

export function Composer({ thread, onSend }) {
  const textarea = useRef(null);
  const key = thread?.id ?? "";
  const text = draftOf(key);
  const running = thread?.streamingId.value ?? null;
  const loading = thread && thread.state.value !== "ready";
  const connected = connection.value === "open";
  const size = new TextEncoder().encode(text).length;
  const limit = session.value?.max_message_bytes ?? Infinity;
  const tooLarge = size > limit - 1024; // room for the frame around the text
  const ready = text.trim() && connected && !loading && !tooLarge && !thread?.busy.value;

  useLayoutEffect(() => {
    const element = textarea.current;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, MAX_HEIGHT_PX)}px`;
    element.style.overflowY = element.scrollHeight > MAX_HEIGHT_PX ? "auto" : "hidden";
  }, [text, isNarrow.value]);
  useLayoutEffect(() => {
    if (!isNarrow.value && document.activeElement === document.body) textarea.current.focus();
  }, [key]);

  const submit = () => {
    if (!ready) return;
    setDraft(key, "");
    sendMessage(text.trim());
    onSend();
  };
  const onKeyDown = (event) => {
    // While Korean, Japanese or Chinese is being composed, Enter ends the syllable. Safari reports 229 only.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    if (coarsePointer.matches) return;
    event.preventDefault();
    submit();
  };
  return html`<form class=${cx("composer", isTemporary(thread) && "temporary")} aria-label=${t("composer.label")}
    onSubmit=${(event) => { event.preventDefault(); submit(); }}>
    <${TemporaryNote} thread=${thread} />
    <textarea ref=${textarea} rows="1" value=${text} placeholder=${t("composer.placeholder")}
      aria-label=${t("composer.label")}
      aria-describedby="composer-note" enterkeyhint=${coarsePointer.matches ? "enter" : "send"} dir="auto"
      onInput=${(event) => setDraft(key, event.target.value)} onKeyDown=${onKeyDown}></textarea>
    <div class="composer-bar">
      <${DomainPicker} thread=${thread} />
      <span class="grow"></span>
      <${ContextMeter} thread=${thread} />
      ${running !== null
        ? html`<button type="button" class="round stop" aria-label=${t("composer.stop")} title=${t("composer.stop")}
          onClick=${() => stopAnswer(running)}><${Icon} name="stop" /></button>`
        : html`<button type="submit" class="round" aria-label=${t("composer.send")} title=${t("composer.send")}
          disabled=${!ready}><${Icon} name="send" /></button>`}
    </div>
    <p id="composer-note" class=${cx("composer-note", tooLarge && "warn")}>
      ${tooLarge ? t("composer.too_large", { size: number(size), limit: number(limit) }) : connected ? ""
        : t("composer.offline")}
    </p>
  </form>`;
}

/** How full the model's context is, after the newest answer of the shown branch. */
function ContextMeter({ thread }) {
  const shown = thread?.shownIds.value.map((id) => thread.messageSignals.get(id).value);
  const answer = shown?.findLast((message) => message.prompt || message.usage);
  const contextLength = answer?.prompt?.context_length ?? session.value?.model?.context_length;
  if (!answer || !contextLength) return null;
  const used = (answer.prompt?.tokens ?? answer.usage.prompt_tokens) + (answer.usage?.completion_tokens ?? 0);
  const share = Math.min(1, used / contextLength);
  const label = t("context.label", { used: number(used), room: number(contextLength), share: percent(share) });
  return html`<button type="button" class=${cx("context", share > 0.8 && "full")} aria-label=${label} title=${label}
    onClick=${() => (dialog.value = { kind: "prompt", id: answer.id })}>
    <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
      <circle class="ring" cx="10" cy="10" r="7.5" pathLength="100" />
      <circle class="fill" cx="10" cy="10" r="7.5" pathLength="100"
        stroke-dasharray=${`${Math.max(share * 100, 1)} 100`} />
    </svg><span>${percent(share)}</span></button>`;
}
