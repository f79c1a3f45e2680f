// An error notice with a retry button.
import { duration } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";

const TRANSLATED_CODES = ["busy", "engine_down"]; // said in the reader's language, before the server's own words
const LIMIT_CODES = ["rate_limited", "quota_exceeded", "overloaded"]; // said in the reader's language alone

/** In words of the reader's language, "" for what is no limit. `error` has a code and retry_after. */
export const limitMessage = ({ code, retry_after: wait }) => (
  LIMIT_CODES.includes(code) ? t(`failure.${code}`, { wait: duration(wait || 1) }) : "");

/** `error` is {code, message, retry_after?}; `children` stand after the retry button. */
export function Failure({ error, onRetry, children }) {
  const explanation = TRANSLATED_CODES.includes(error.code) ? t(`failure.${error.code}`) : "";
  const limit = limitMessage(error);
  return html`<div class="notice error" role="alert">
    <${Icon} name="alert" />
    <span>${explanation && html`<strong>${explanation}</strong> `}${limit || error.message}</span>
    <button type="button" class="button small" onClick=${onRetry}>${t("action.retry")}</button>
    ${children}
  </div>`;
}
