// A passage in its document: the neighbouring passages of the file, with the lines that support the answer marked.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { call } from "../api.js";
import { splitAtSpans } from "../checks.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { locationLabel } from "../sources.js";
import { dialog } from "../state.js";
import { Dialog } from "./Dialog.js";

const NEIGHBOUR_COUNT = 20; // passages on each side that are fetched together
const NO_NEIGHBOURS = { before: [], after: [], more: { before: false, after: false } };

const fetchNeighbours = (id) => call("GET", `/api/passages/${encodeURIComponent(id)}?reach=${NEIGHBOUR_COUNT}`);

export function SourceDialog({ passages, index, spansByPassage = {} }) {
  const { n, passage } = passages[index];
  const showSource = (index) => (dialog.value = { kind: "source", passages, index, spansByPassage });
  return html`<${Dialog} title=${`[${n}] ${passage.file}`} wide>
    <dl class="facts">
      <div><dt>${t("source.folder")}</dt><dd>${passage.folder}</dd></div>
      ${passage.heading.length > 0 && html`<div><dt>${t("source.heading")}</dt><dd>${passage.heading.join(" › ")}</dd>
        </div>`}
      ${locationLabel(passage) && html`<div><dt>${t("source.place")}</dt><dd>${locationLabel(passage)}</dd></div>`}
      ${passage.score > 0 && html`<div><dt>${t("source.score")}</dt><dd>${passage.score.toFixed(2)}</dd></div>`}
    </dl>
    <${PassageInDocument} key=${passage.id} passage=${passage} spans=${spansByPassage[n] ?? []} />
    ${passages.length > 1 && html`<div class="dialog-actions spread">
      <button type="button" class="button" disabled=${index === 0} onClick=${() => showSource(index - 1)}><${Icon}
        name="left"
        size=${16} />${t("source.previous")}</button>
      <button type="button" class="button" disabled=${index === passages.length - 1}
        onClick=${() => showSource(index + 1)}>${t("source.next")}<${Icon} name="right" size=${16} /></button>
    </div>`}
  </${Dialog}>`;
}

/** The stored passage at once; its neighbours as soon as they are fetched. */
function PassageInDocument({ passage, spans }) {
  const [neighbours, setNeighbours] = useState(NO_NEIGHBOURS);
  const [note, setNote] = useState("");
  const container = useRef(null);
  const distanceFromBottom = useRef(null); // keeps the scroll position while text is prepended; null: not yet shown

  useEffect(() => {
    let cancelled = false;
    fetchNeighbours(passage.id).then((result) => {
      if (cancelled) return;
      if (!result.living) setNote(t("source.changed"));
      else setNeighbours({ before: result.before, after: result.after, more: hasMore(result) });
    }).catch((error) => {
      if (!cancelled) setNote(error.status === 404 ? t("source.gone")
        : t("source.context_failed", { message: error.message }));
    });
    return () => { cancelled = true; };
  }, [passage.id]);

  useLayoutEffect(() => {
    const element = container.current;
    if (distanceFromBottom.current === null) scrollToCited(element);
    else if (distanceFromBottom.current) element.scrollTop = element.scrollHeight - distanceFromBottom.current;
    distanceFromBottom.current = null;
  }, [neighbours]);

  const loadMore = async (side) => {
    const edge = side === "before" ? neighbours.before[0] : neighbours.after.at(-1);
    try {
      const result = await fetchNeighbours(edge.id);
      distanceFromBottom.current = side === "before" ? container.current.scrollHeight - container.current.scrollTop : 0;
      setNeighbours({
        before: side === "before" ? [...result.before, ...neighbours.before] : neighbours.before,
        after: side === "after" ? [...neighbours.after, ...result.after] : neighbours.after,
        more: { ...neighbours.more, [side]: hasMore(result)[side] },
      });
    } catch (error) {
      setNote(t("source.context_failed", { message: error.message }));
    }
  };

  const passages = [...neighbours.before, passage, ...neighbours.after];
  return html`
    ${note && html`<p class="hint warn" role="status">${note}</p>`}
    <div class="passage" ref=${container} tabindex="0" dir="auto" aria-label=${t("source.text")} role="region">
      ${neighbours.more.before && html`<button type="button" class="link" onClick=${() => loadMore("before")}>
        ${t("source.more_before")}</button>`}
      ${passages.map((item, index) => html`<${PassageText} key=${item.id} passage=${item}
        previous=${passages[index - 1]}
        cited=${item === passage} spans=${item === passage ? spans : []} />`)}
      ${neighbours.more.after && html`<button type="button" class="link" onClick=${() => loadMore("after")}>
        ${t("source.more_after")}</button>`}
    </div>`;
}

function PassageText({ passage, previous, cited, spans }) {
  const heading = passage.heading.join(" › ");
  const newHeading = previous && heading && heading !== previous.heading.join(" › ");
  return html`
    ${newHeading && html`<h3 class="doc-heading">${heading}</h3>`}
    <div class=${cx("doc-text", cited && "hit")}>${splitAtSpans(passage.text, spans).map((part, index) => (part.marked
      ? html`<mark key=${index}>${part.text}</mark>` : html`<span key=${index}>${part.text}</span>`))}</div>`;
}

const hasMore = ({ before, after }) => (
  { before: before.length === NEIGHBOUR_COUNT, after: after.length === NEIGHBOUR_COUNT }
);

/** Scrolls the box, and nothing else, to what was cited. */
function scrollToCited(container) {
  const target = container.querySelector("mark") ?? container.querySelector(".hit");
  const top = target.getBoundingClientRect().top - container.getBoundingClientRect().top + container.scrollTop;
  container.scrollTop = Math.max(0, top - container.clientHeight / 4);
}
