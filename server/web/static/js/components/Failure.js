// An error notice with a retry button.
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";

const TRANSLATED_CODES = ["busy", "engine_down"]; // said in the reader's language, before the server's own words

/** `error` is {code, message}; `children` stand after the retry button. */
export function Failure({ error, onRetry, children }) {
  const explanation = TRANSLATED_CODES.includes(error.code) ? t(`failure.${error.code}`) : "";
  return html`<div class="notice error" role="alert">
    <${Icon} name="alert" />
    <span>${explanation && html`<strong>${explanation}</strong> `}${error.message}</span>
    <button type="button" class="button small" onClick=${onRetry}>${t("action.retry")}</button>
    ${children}
  </div>`;
}
