// The answer's Markdown, block by block, and clicks inside it: code copying; citations are SourceCard's.
import { useRef } from "preact/hooks";
import { insertCheckTags } from "../checks.js";
import { copyText } from "../clipboard.js";
import { html } from "../html.js";
import { lang, t } from "../i18n.js";
import { renderBlocks } from "../markdown.js";
import { memo } from "../memo.js";
import { SourceCard } from "./SourceCard.js";

/** Domains with a schema answer in JSON, on one line; people read it better on several. */
function readable(text) {
  if (!/^\s*(?:\{|\[\s*\{)[^]*[}\]]\s*$/.test(text)) return text;
  try {
    return `\`\`\`json\n${JSON.stringify(JSON.parse(text), null, 2)}\n\`\`\``;
  } catch {
    return text; // not finished, or only looks like it
  }
}

const Block = memo(({ markup }) => html`<div class="block" dangerouslySetInnerHTML=${{ __html: markup }}></div>`);

export function AnswerText({ message }) {
  const root = useRef(null);
  const onClick = async (event) => {
    const copy = event.target.closest("button.code-copy");
    if (copy && (await copyText(copy.closest(".code").querySelector("code").textContent))) {
      copy.textContent = t("action.copied");
      setTimeout(() => (copy.textContent = t("action.copy")), 1500);
    }
  };
  const text = message.checks.length ? insertCheckTags(message.text, message.checks) : readable(message.text);
  const sources = Math.max(0, ...message.passages.map((item) => item.n));
  const blocks = renderBlocks(text, sources, lang.value);
  return html`<div class=${message.status === "streaming" ? "markdown streaming" : "markdown"} dir="auto" ref=${root}
    onClick=${onClick}>
    ${blocks.map((block) => html`<${Block} key=${block.key} markup=${block.html} />`)}
  </div>
  <${SourceCard} root=${root} message=${message} />`;
}
