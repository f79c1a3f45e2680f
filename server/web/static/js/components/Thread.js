// The open chat: header, messages, what is being sent, and following the newest words.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { newChat, retry, takeBack } from "../actions.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { target } from "../router.js";
import { drawer, narrow, panel, toast } from "../state.js";
import { outgoing } from "../thread.js";
import { current, loadThread } from "../threads.js";
import { Banner } from "./Banner.js";
import { Composer } from "./Composer.js";
import { IconButton, ListState } from "./controls.js";
import { Failure } from "./Failure.js";
import { Answer, Question } from "./Message.js";
import { TemporaryMark } from "./Temporary.js";
import { Welcome } from "./Welcome.js";

const NEAR = 60; // pixels from the end that count as "at the end"

export function ThreadView() {
  const thread = current.value;
  const covered = narrow.value && (drawer.value || panel.value !== null);
  return html`<main class="main" inert=${covered} aria-label=${t("thread.label")}>
    <${Header} thread=${thread} />
    <${Banner} />
    <${Scroller} thread=${thread} />
  </main>`;
}

function Header({ thread }) {
  return html`<header class="header">
    ${narrow.value && html`<${IconButton} icon="menu" label=${t("nav.open")} onClick=${() => (drawer.value = true)} />`}
    <h1 title=${thread?.title.value}>${thread ? thread.title.value || t("thread.new") : t("thread.new")}</h1>
    <${TemporaryMark} thread=${thread} />
    ${narrow.value && html`<${IconButton} icon="plus" label=${t("nav.new")} onClick=${newChat} />`}
  </header>`;
}

function Scroller({ thread }) {
  const box = useRef(null);
  const content = useRef(null);
  const following = useRef(true);
  const lastTop = useRef(0);
  const empty = useRef(false);
  const [away, setAway] = useState(false);

  const toEnd = () => {
    following.current = true;
    setAway(false);
    box.current.scrollTop = box.current.scrollHeight;
  };
  useLayoutEffect(() => {
    const watcher = new ResizeObserver(() => {
      if (following.current && !empty.current) box.current.scrollTop = box.current.scrollHeight;
    });
    watcher.observe(content.current);
    watcher.observe(box.current);
    return () => watcher.disconnect();
  }, []);
  const wanted = target.value?.id === thread?.id ? target.value : null;
  useLayoutEffect(() => {
    if (empty.current) box.current.scrollTop = 0;
    else if (!wanted) toEnd();
  }, [thread]);
  const ready = thread?.state.value === "ready";
  useEffect(() => {
    if (!wanted || !ready) return;
    if (!thread.cells.has(wanted.message)) {
      toast(t("search.gone"), { kind: "error" });
      return;
    }
    following.current = false;
    thread.show(wanted.message);
    // drawn with the branch that holds it
    requestAnimationFrame(() => requestAnimationFrame(() => pointAt(box.current, wanted.message)));
  }, [wanted, ready]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    // Only the reader moves up; text that grows below never does. So only moving up ends following.
    if (near) following.current = true;
    else if (scrollTop < lastTop.current - 1) following.current = false;
    lastTop.current = scrollTop;
    setAway(!near && !following.current);
  };

  const waiting = outgoing.value.filter((item) => item.thread === thread);
  useEffect(() => {
    if (waiting.length) toEnd(); // what the user has just sent is always shown
  }, [waiting.length]);

  const state = thread?.state.value ?? "ready";
  empty.current = state === "ready" && !waiting.length && (!thread || thread.nodes.value.length === 0);
  return html`
    <div class="scroller" ref=${box} onScroll=${onScroll} tabindex="-1">
      <div class="column" ref=${content}>
        ${empty.current && html`<${Welcome} />`}
        <${ListState} state=${state} error=${thread?.error.value} onRetry=${() => loadThread(thread)} lines=${5} />
        ${thread && state === "ready" && html`<${Messages} thread=${thread} />`}
        ${waiting.map((item) => html`<${Waiting} key=${item.request_id} item=${item} />`)}
      </div>
    </div>
    <div class="dock">
      ${away && html`<button type="button" class="jump" onClick=${toEnd}><${Icon} name="down"
        size=${16} />${t("thread.jump")}</button>`}
      <${Composer} thread=${thread} onSend=${toEnd} />
    </div>`;
}

/** Brings a message to the middle, marks it for a while, and puts the focus there. */
function pointAt(box, id) {
  const element = box?.querySelector(`[data-message="${CSS.escape(id)}"]`);
  if (!element) return;
  const { top, height } = element.getBoundingClientRect();
  const room = Math.max(16, (box.clientHeight - height) / 2);
  box.scrollTop += top - box.getBoundingClientRect().top - room;
  element.focus({ preventScroll: true });
  element.classList.remove("pointed");
  void element.offsetWidth; // so that pointing at it again marks it again
  element.classList.add("pointed");
}

function Messages({ thread }) {
  const roles = thread.roles.value;
  return thread.shown.value.map((id) => {
    const Kind = roles.get(id) === "user" ? Question : Answer;
    return html`<${Kind} key=${id} thread=${thread} cell=${thread.cells.get(id)} />`;
  });
}

/** Sent and not confirmed, or refused. */
function Waiting({ item }) {
  return html`
    ${item.text && html`<article class="question pending"><div class="bubble">${item.text}</div></article>`}
    ${item.error
      ? html`<${Failure} error=${item.error} onRetry=${() => retry(item)}>
          ${item.text && html`<button type="button" class="button small quiet"
            onClick=${() => takeBack(item)}>${t("thread.take_back")}</button>`}
        </${Failure}>`
      : html`<p class="phase"><span class="dots" aria-hidden="true"></span>${t("phase.sending")}</p>`}`;
}
