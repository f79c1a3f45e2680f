// Markdown to safe HTML. Text comes from a model, so raw HTML is shown as text, remote images become
// links, only http(s) and mailto links stay, and DOMPurify looks at the result last.
import DOMPurify from "dompurify";
import { Marked } from "marked";
import { findTag, formatCitations, readTag } from "./checks.js";
import { t } from "./i18n.js";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
export const escapeHtml = (text) => String(text).replace(/[&<>"']/g, (character) => ESCAPES[character]);

const ALLOWED_TAGS = [
  "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote",
  "ul", "ol", "li", "input", "table", "thead", "tbody", "tr", "th", "td", "a", "span", "div", "button",
];
const ALLOWED_ATTRIBUTES = [
  "href", "class", "align", "start", "type", "checked", "disabled", "data-n", "data-c", "data-cited", "data-copy",
  "title", "aria-label", "tabindex", "role",
];

const purifier = DOMPurify();
purifier.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  if (!isWebLink(node.getAttribute("href"))) {
    node.removeAttribute("href");
    return;
  }
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** The absolute address of an http(s) or mailto link, or null. */
function isWebLink(href) {
  return /^(https?:\/\/|mailto:)[^\s]/i.test(href ?? "") ? href : null;
}

function sanitize(html) {
  return purifier.sanitize(html, { ALLOWED_TAGS, ALLOWED_ATTR: ALLOWED_ATTRIBUTES, ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false });
}

// `sources` is how many passages the answer has; numbers in square brackets are citations only then.
let currentSourceCount = 0;

const citation = {
  name: "citation",
  level: "inline",
  start: (text) => (currentSourceCount ? text.search(/\[\d/) : -1),
  tokenizer(text) {
    const match = currentSourceCount ? /^\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\](?![(:])/.exec(text) : null;
    return match ? { type: "citation", raw: match[0], numbers: match[1].split(",").map(Number) } : undefined;
  },
  renderer: ({ numbers }) => numbers.map((n) => citationMark(n)).join(""),
};

/** `tag`: of the check that this citation belongs to. */
function citationMark(n, tag = null) {
  if (n < 1 || n > currentSourceCount) {
    return `<span class="cite-unknown" title="${escapeHtml(t("source.unknown", { n }))}">[${n}]</span>`;
  }
  const correction = tag && !tag.cited.includes(n) ? (tag.cited.length ? "corrected" : "added") : "";
  const note = correction && t(`cite.${correction}`, { list: formatCitations(tag.cited) });
  const label = [t("source.open", { n }), note].filter(Boolean);
  const data = tag ? ` data-c="${tag.check}" data-cited="${tag.cited.join(",")}"` : "";
  return `<button type="button" class="cite ${correction}" data-n="${n}"${data} ` +
    `aria-label="${escapeHtml(label.join(". "))}">${n}</button>`;
}

// What `insertCheckTags` put into the text: corrected citations, and the spans of sentences that no source supports.
const checkTag = {
  name: "checked",
  level: "inline",
  start: (text) => findTag(text),
  tokenizer(text) {
    const tag = readTag(text);
    return tag ? { type: "checked", ...tag } : undefined;
  },
  renderer(tag) {
    if (tag.kind === "M") return tag.shown.map((n) => citationMark(n, tag)).join("");
    if (tag.kind === "V") return "</span>";
    const reason = unsupportedReason(tag.cited);
    return `<span class="bare" tabindex="0" role="note" data-c="${tag.check}" data-cited="${tag.cited.join(",")}" ` +
      `title="${escapeHtml(reason)}">`;
  },
};

/** Why a sentence is marked: what it cited, if anything, does not support it, and no other source does. */
export const unsupportedReason = (cited) =>
  t(cited.length ? "cite.dropped" : "cite.unsupported", { list: formatCitations(cited) });

// CommonMark leaves the stars of **가격(원)**은 standing, since punctuation meets a letter there. Korean,
// Japanese and Chinese write no space in that place, so bold that begins or ends with punctuation is taken too.
const boldBesideLetters = {
  name: "boldBesideLetters",
  level: "inline",
  start: (text) => text.indexOf("**"),
  tokenizer(text) {
    const match = /^\*\*(?=[^\s*])([^*\n]*[^\s*])\*\*(?!\*)/u.exec(text);
    if (!match || !/^\p{P}|\p{P}$/u.test(match[1])) return undefined;
    return { type: "strong", raw: match[0], text: match[1], tokens: this.lexer.inlineTokens(match[1]) };
  },
};

const renderer = {
  html: ({ text }) => (/^<br\s*\/?>$/i.test(text.trim()) ? "<br>" : escapeHtml(text)),
  image({ href, text }) {
    const label = escapeHtml(text || t("markdown.image"));
    return isWebLink(href) ? `<a class="image-link" href="${escapeHtml(href)}">${label}</a>` : label;
  },
  link({ href, tokens }) {
    const inner = this.parser.parseInline(tokens);
    return isWebLink(href) ? `<a href="${escapeHtml(href)}">${inner}</a>` : inner;
  },
  code({ text, lang }) {
    const name = escapeHtml((lang ?? "").split(/\s/)[0]);
    const copy = `<button type="button" class="code-copy" data-copy="1">${escapeHtml(t("action.copy"))}</button>`;
    return `<div class="code"><div class="code-head"><span>${name}</span>${copy}</div>` +
      `<pre tabindex="0"><code>${escapeHtml(text)}</code></pre></div>`;
  },
  table({ header, rows }) {
    const cell = (tag) => ({ tokens, align }) =>
      `<${tag}${align ? ` align="${align}"` : ""}>${this.parser.parseInline(tokens)}</${tag}>`;
    const line = (cells, tag) => `<tr>${cells.map(cell(tag)).join("")}</tr>`;
    return `<div class="table" tabindex="0"><table><thead>${line(header, "th")}</thead>` +
      `<tbody>${rows.map((row) => line(row, "td")).join("")}</tbody></table></div>`;
  },
  // headings of an answer stand below the page's own
  heading({ tokens, depth }) {
    const level = Math.min(depth + 2, 6);
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
  },
};

const marked = new Marked({ gfm: true, breaks: true, extensions: [checkTag, citation, boldBesideLetters], renderer });
const cache = new Map(); // block → HTML
const MAX_CACHED_BLOCKS = 400;

/**
 * The answer as blocks of safe HTML, [{key, html}]. While an answer grows, only its last block changes,
 * so the others keep their HTML and the page keeps their nodes (and the user's selection).
 */
export function renderBlocks(text, sourceCount = 0, language = "") {
  currentSourceCount = sourceCount;
  const tokens = marked.lexer(text);
  const hasReferenceLinks = Object.keys(tokens.links).length > 0;
  const blocks = [];
  for (const token of tokens) {
    if (token.type === "space" || token.type === "def") continue;
    const cacheKey = `${language}|${sourceCount}|${token.raw}`;
    let safeHtml = hasReferenceLinks ? undefined : cache.get(cacheKey);
    if (safeHtml === undefined) {
      safeHtml = sanitize(marked.parser([token]));
      if (!hasReferenceLinks) cacheBlock(cacheKey, safeHtml);
    }
    blocks.push({ key: blocks.length, html: safeHtml });
  }
  return blocks;
}

function cacheBlock(cacheKey, safeHtml) {
  if (cache.size >= MAX_CACHED_BLOCKS) cache.delete(cache.keys().next().value);
  cache.set(cacheKey, safeHtml);
}

/** The whole text as one piece of safe HTML. */
export function renderMarkdown(text, sourceCount = 0) {
  return renderBlocks(text, sourceCount).map((block) => block.html).join("\n");
}

/** Without markup, for a screen reader's announcement. */
export function plainText(text) {
  const template = document.createElement("template");
  template.innerHTML = renderMarkdown(text);
  return template.content.textContent.replace(/\s+/g, " ").trim();
}
