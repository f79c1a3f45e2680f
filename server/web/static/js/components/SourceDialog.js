// A passage in its document: what stands around it in the file now, with the lines that carry the answer marked.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { call } from "../api.js";
import { pieces } from "../checks.js";
import { html, cx } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { placeOf } from "../sources.js";
import { dialog } from "../state.js";
import { Dialog } from "./Dialog.js";

const REACH = 20; // passages on each side that are fetched together
const ALONE = { before: [], after: [], more: { before: false, after: false } };

const fetchAround = (id) => call("GET", `/api/passages/${encodeURIComponent(id)}?reach=${REACH}`);

export function SourceDialog({ passages, at, lines = {} }) {
  const { n, passage } = passages[at];
  const to = (index) => (dialog.value = { kind: "source", passages, at: index, lines });
  return html`<${Dialog} title=${`[${n}] ${passage.file}`} wide>
    <dl class="facts">
      <div><dt>${t("source.folder")}</dt><dd>${passage.folder}</dd></div>
      ${passage.heading.length > 0 && html`<div><dt>${t("source.heading")}</dt><dd>${passage.heading.join(" › ")}</dd>
        </div>`}
      ${placeOf(passage) && html`<div><dt>${t("source.place")}</dt><dd>${placeOf(passage)}</dd></div>`}
      ${passage.score > 0 && html`<div><dt>${t("source.score")}</dt><dd>${passage.score.toFixed(2)}</dd></div>`}
    </dl>
    <${InDocument} key=${passage.id} passage=${passage} spans=${lines[n] ?? []} />
    ${passages.length > 1 && html`<div class="dialog-actions spread">
      <button type="button" class="button" disabled=${at === 0} onClick=${() => to(at - 1)}><${Icon} name="left"
        size=${16} />${t("source.previous")}</button>
      <button type="button" class="button" disabled=${at === passages.length - 1}
        onClick=${() => to(at + 1)}>${t("source.next")}<${Icon} name="right" size=${16} /></button>
    </div>`}
  </${Dialog}>`;
}

/** The stored passage at once; what stands around it as soon as it has come. */
function InDocument({ passage, spans }) {
  const [around, setAround] = useState(ALONE);
  const [note, setNote] = useState("");
  const box = useRef(null);
  const below = useRef(null); // what was below the top edge, and must stay there while text comes in above

  useEffect(() => {
    let closed = false;
    fetchAround(passage.id).then((found) => {
      if (closed) return;
      if (!found.living) setNote(t("source.changed"));
      else setAround({ before: found.before, after: found.after, more: moreOf(found) });
    }).catch((error) => {
      if (!closed) setNote(error.status === 404 ? t("source.gone") : t("source.alone", { message: error.message }));
    });
    return () => { closed = true; };
  }, [passage.id]);

  useLayoutEffect(() => {
    const element = box.current;
    if (below.current === null) show(element);
    else if (below.current) element.scrollTop = element.scrollHeight - below.current;
    below.current = null;
  }, [around]);

  const grow = async (side) => {
    const edge = side === "before" ? around.before[0] : around.after.at(-1);
    try {
      const found = await fetchAround(edge.id);
      below.current = side === "before" ? box.current.scrollHeight - box.current.scrollTop : 0;
      setAround({
        before: side === "before" ? [...found.before, ...around.before] : around.before,
        after: side === "after" ? [...around.after, ...found.after] : around.after,
        more: { ...around.more, [side]: moreOf(found)[side] },
      });
    } catch (error) {
      setNote(t("source.alone", { message: error.message }));
    }
  };

  const all = [...around.before, passage, ...around.after];
  return html`
    ${note && html`<p class="hint warn" role="status">${note}</p>`}
    <div class="passage" ref=${box} tabindex="0" dir="auto" aria-label=${t("source.text")} role="region">
      ${around.more.before && html`<button type="button" class="link" onClick=${() => grow("before")}>
        ${t("source.more_before")}</button>`}
      ${all.map((one, index) => html`<${Piece} key=${one.id} passage=${one} before=${all[index - 1]}
        hit=${one === passage} spans=${one === passage ? spans : []} />`)}
      ${around.more.after && html`<button type="button" class="link" onClick=${() => grow("after")}>
        ${t("source.more_after")}</button>`}
    </div>`;
}

function Piece({ passage, before, hit, spans }) {
  const heading = passage.heading.join(" › ");
  const fresh = before && heading && heading !== before.heading.join(" › ");
  return html`
    ${fresh && html`<h3 class="doc-heading">${heading}</h3>`}
    <div class=${cx("doc-text", hit && "hit")}>${pieces(passage.text, spans).map((piece, index) => (piece.marked
      ? html`<mark key=${index}>${piece.text}</mark>` : html`<span key=${index}>${piece.text}</span>`))}</div>`;
}

const moreOf = ({ before, after }) => ({ before: before.length === REACH, after: after.length === REACH });

/** Scrolls the box, and nothing else, to what was cited. */
function show(box) {
  const target = box.querySelector("mark") ?? box.querySelector(".hit");
  const top = target.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop;
  box.scrollTop = Math.max(0, top - box.clientHeight / 4);
}
