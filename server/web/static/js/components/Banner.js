// One line above the chat while the connection or the model is down; both recover by themselves.
import { useEffect, useState } from "preact/hooks";
import { modelDown } from "../health.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { connection, reconnectNow } from "../socket.js";

const SHOW_DELAY_MS = 1000; // a shorter break of the connection does not flicker

export function Banner() {
  const [shown, setShown] = useState(false);
  const lost = connection.value === "lost";
  useEffect(() => {
    if (!lost) {
      setShown(false);
      return undefined;
    }
    const timer = setTimeout(() => setShown(true), SHOW_DELAY_MS);
    return () => clearTimeout(timer);
  }, [lost]);
  if (shown && lost) {
    return html`<${BannerLine} text=${t("connection.lost")}>
      <button type="button" class="link" onClick=${reconnectNow}>${t("connection.retry")}</button></${BannerLine}>`;
  }
  return modelDown.value ? html`<${BannerLine} text=${t("model.down")} />` : null;
}

function BannerLine({ text, children }) {
  return html`<div class="banner" role="status"><span class="dots" aria-hidden="true"></span>
    <span>${text}</span>${children}</div>`;
}
