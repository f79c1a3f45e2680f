// Token counts and timings under an answer.
import { decimal, number, percent } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";

/** The server itself answered, without the model. */
export const answeredWithoutModel = ({ usage }) => Boolean(usage) && !usage.prompt_tokens && !usage.completion_tokens;

export function UsageLine({ message }) {
  const usage = message.usage;
  if (!usage) return null;
  if (answeredWithoutModel(message)) return html`<span class="numbers">${t(message.searched ? "usage.refused" : "usage.none")}</span>`;
  const parts = [t("usage.tokens", { n: number(usage.completion_tokens) })];
  if (message.speed > 0) parts.push(t("usage.speed", { n: decimal(message.speed) }));
  if (usage.ttft_s > 0) parts.push(t("usage.ttft", { n: decimal(usage.ttft_s, 2) }));
  const counts = { prompt: number(usage.prompt_tokens), cached: number(usage.cached_tokens) };
  const detail = t("usage.detail", { ...counts, queue: decimal(usage.queue_s, 2), total: decimal(usage.total_s, 2) });
  return html`<span class="numbers" title=${detail}>${parts.join(" · ")}
    ${usage.cached_tokens > 0 && html`${" · "}<span class="reused" title=${t("usage.reused_long", counts)}>
      ${t("usage.reused", { share: cachedShare(usage) })}</span>`}</span>`;
}

/** Rounded down: some is never shown as none, and nearly all never as all. */
function cachedShare({ cached_tokens: cached, prompt_tokens: prompt }) {
  const wholePercent = Math.floor((100 * cached) / prompt);
  return wholePercent ? percent(wholePercent / 100) : `<${percent(0.01)}`;
}
