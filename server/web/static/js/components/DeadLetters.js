// Dead letters: messages whose memory extraction failed, with the reason; each can be retried or dismissed.
import { useEffect } from "preact/hooks";
import { deadLetters, dismissDeadLetter, loadDeadLetters, retryDeadLetter } from "../deadletters.js";
import { date, day } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { changeCounters } from "../state.js";
import { ListState } from "./controls.js";
import { SourceLink } from "./MemoryRow.js";

export function DeadLetters() {
  const changeCount = changeCounters.memories.value;
  useEffect(() => { loadDeadLetters(); }, [changeCount]);
  const { state, items, error } = deadLetters.value;
  if (state === "loading" || (state === "ready" && !items.length)) return null;
  return html`<section class="dead-letters" aria-label=${t("dead.title", { n: items.length })}>
    <h3><${Icon} name="alert" size=${16} />${t("dead.title", { n: items.length })}</h3>
    <p class="hint">${t("dead.text")}</p>
    <${ListState} state=${state} error=${error} onRetry=${loadDeadLetters} />
    <ul class="memories">${items.map((letter) => html`<li key=${letter.id} class="memory">
      <p class="memory-text" dir="auto">${letter.text}</p>
      <p class="reason">${letter.reason}</p>
      <div class="memory-foot"><span title=${date(letter.created_at)}>${day(letter.created_at)}</span>
        <span class="memory-acts"><${SourceLink} memory=${letter} />
        <button type="button" class="button small" aria-label=${t("dead.retry_this", { text: letter.text })}
          onClick=${() => retryDeadLetter(letter, t("dead.retried"))}>${t("action.retry")}</button>
        <button type="button" class="button small quiet" aria-label=${t("dead.dismiss_this", { text: letter.text })}
          onClick=${() => dismissDeadLetter(letter, t("dead.dismissed"))}>${t("action.dismiss")}</button></span></div>
    </li>`)}</ul>
  </section>`;
}
