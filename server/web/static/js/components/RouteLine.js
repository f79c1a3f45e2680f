// Above an answer: which domain answered and why, with which adapter, and the memories and turns in its prompt.
import { useState } from "preact/hooks";
import { chooseDomain } from "../actions.js";
import { decimal } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { dialog, domains } from "../state.js";
import { answeredWithoutModel } from "./UsageLine.js";

export function RouteLine({ message }) {
  const [open, setOpen] = useState(false);
  const { route, memories_used: memories, chats_used: turns } = message;
  if (!route && !memories.length && !turns.length) return null;
  return html`<div class="route">
    ${route && html`<button type="button" class="route-button" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      <strong>${message.domain_title || domainTitle(route.domain)}</strong><span
        class="why">${routeReason(route)}</span>
      <${Icon} name="down" size=${14} />
    </button>`}
    ${message.adapter && !answeredWithoutModel(message) && html`<span class="chip"
      title=${t("route.adapter", { name: message.adapter })}>
      <${Icon} name="layers" size=${14} />${message.adapter}</span>`}
    ${memories.length > 0 && html`<button type="button" class="chip"
      onClick=${() => (dialog.value = { kind: "used-memories", memories })}>
      <${Icon} name="memory" size=${14} />${t("used.chip", { n: memories.length })}</button>`}
    ${turns.length > 0 && html`<button type="button" class="chip"
      onClick=${() => (dialog.value = { kind: "quoted-turns", turns })}>
      <${Icon} name="chat" size=${14} />${t("quoted.chip", { n: turns.length })}</button>`}
    ${open && html`<${Candidates} route=${route} />`}
  </div>`;
}

const domainTitle = (name) => domains.value.items.find((item) => item.name === name)?.title ?? name;

/** Why this domain, in a few words. */
export function routeReason(route) {
  const threshold = decimal(route.threshold, 2);
  if (route.how === "fallback") {
    const best = route.candidates.find((candidate) => candidate.domain !== route.domain)?.score;
    return best === undefined ? t("route.fallback") : t("route.fallback_best", { score: decimal(best, 2), threshold });
  }
  return t(`route.${route.how}`, { score: decimal(route.score ?? 0, 2) });
}

function Candidates({ route }) {
  if (!route.candidates.length) return html`<p class="candidates none">${t(`route.${route.how}_long`)}</p>`;
  return html`<div class="candidates"><table>
    <thead><tr><th>${t("route.domain")}</th><th>${t("route.score")}</th><th>${t("route.example")}</th></tr></thead>
    <tbody>${route.candidates.map((candidate) => html`<tr key=${candidate.domain}
      class=${candidate.domain === route.domain ? "won" : ""}>
      <td>${domainTitle(candidate.domain)}</td>
      <td class="score"><meter min="0" max="1" value=${Math.max(0, candidate.score)} low=${route.threshold}
        aria-hidden="true"></meter>${decimal(candidate.score, 2)}</td>
      <td class="example">${candidate.example}</td>
    </tr>`)}</tbody></table>
    <p class="hint">${t("route.threshold", { threshold: decimal(route.threshold, 2) })}</p>
    <${Hold} route=${route} /></div>`;
}

/** Auto decides anew for each message; this keeps the chat where it is. */
function Hold({ route }) {
  if (route.how === "chosen") return null;
  return html`<button type="button" class="link" onClick=${() => chooseDomain(route.domain)}>
    ${t("route.hold", { title: domainTitle(route.domain) })}</button>`;
}
