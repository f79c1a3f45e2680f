// The message reducer: stored messages and live events, both turned into one shape. Pure.

const EMPTY_MESSAGE = {
  id: "", parent_id: null, role: "assistant", text: "", created_at: 0, status: "streaming",
  seq: 0,              // of the last event applied
  phase: "",           // while streaming: routing, preparing, queued, thinking, writing
  position: 0,         // in the queue
  reasoning: "", route: null, domain: null, domain_title: "", adapter: null,
  searched: false, folders: [], passages: [], dropped: 0,
  unread: 0,           // files of its folders that were still being read
  notice: "",          // what the user should know of this answer
  memories_used: [], memories_saved: [],
  memories_forgotten: 0, // how many; their texts come once, by event, in `forgotten`
  forgotten: [],
  mentions: [],        // by that event, too: [{conversation_id, title, messages}] that still mention it
  held_back: [],       // [{text, reason}]: not kept unless the user says so; never stored
  chats_used: [],      // turns of earlier chats that were quoted to the model
  citations: [], invalid_citations: [],
  checks: [],          // of the answer's sentences; none in answers of old
  prompt: null,        // {sections, tokens, context_length, trimmed_turns, trimmed_evidence}
  usage: null, speed: 0, finish_reason: null, error: null,
};

/** Fields that only events carry; stored messages lack them. */
export const EVENT_ONLY_FIELDS = ["seq", "prompt", "dropped", "forgotten", "mentions", "held_back"];

/** A message as the API gives it, with every field present. */
export function fromStored(stored) {
  const message = { ...EMPTY_MESSAGE };
  for (const key of Object.keys(EMPTY_MESSAGE)) if (stored[key] != null) message[key] = stored[key];
  message.searched = stored.searched ?? (message.folders.length > 0 || message.passages.length > 0);
  message.speed = speedOf(message.usage);
  return message;
}

/** The question that `started` stored. */
export function createQuestion(started, text, now) {
  return {
    ...EMPTY_MESSAGE, id: started.user_message_id, parent_id: started.parent_id, role: "user", text,
    created_at: now, status: "complete",
  };
}

/** The empty answer that `started` announces. */
export function createAnswer(started, now) {
  return {
    ...EMPTY_MESSAGE, id: started.message_id, parent_id: started.user_message_id, created_at: now,
    seq: started.seq, phase: "routing",
  };
}

/** The same answer before its first event: what a resume from 0 rebuilds. */
export function resetForReplay(message) {
  const { id, parent_id, created_at } = message;
  return { ...EMPTY_MESSAGE, id, parent_id, created_at, phase: "routing" };
}

/** The answer after one event. Unknown events change only `seq`. */
export function applyEvent(message, event) {
  const next = { ...message, seq: event.seq };
  switch (event.type) {
    case "route":
      return { ...next, route: event.decision, domain: event.decision.domain, domain_title: event.title,
        phase: "preparing" };
    case "memories":
      return { ...next, memories_used: event.memories };
    case "chats":
      return { ...next, chats_used: event.turns };
    case "evidence":
      return { ...next, searched: event.searched, passages: event.passages, folders: event.folders,
        dropped: event.dropped, unread: event.unread };
    case "prompt": {
      const { sections, tokens, context_length, trimmed_turns, trimmed_evidence } = event;
      const prompt = { sections, tokens, context_length, trimmed_turns, trimmed_evidence };
      return { ...next, prompt, adapter: event.adapter, phase: "thinking" };
    }
    case "notice":
      return { ...next, notice: [next.notice, event.text].filter(Boolean).join("\n"),
        adapter: event.without_adapter ? null : next.adapter };
    case "queued":
      return { ...next, phase: "queued", position: event.position };
    case "reasoning":
      return { ...next, phase: "thinking", reasoning: next.reasoning + event.text };
    case "token":
      return { ...next, phase: "writing", text: next.text + event.text };
    case "citations":
      return { ...next, citations: event.citations, invalid_citations: event.invalid, checks: event.checks ?? [] };
    case "done":
      return { ...next, status: event.finish_reason === "cancelled" ? "stopped" : "complete", phase: "",
        finish_reason: event.finish_reason, usage: event.usage, speed: event.tokens_per_second };
    case "memory_saved":
      return { ...next, memories_saved: event.memories };
    case "memory_forgotten":
      return { ...next, memories_forgotten: event.memories.length, forgotten: event.memories,
        mentions: event.mentions ?? [] };
    case "memory_held_back":
      return { ...next, held_back: event.items };
    case "error":
      return { ...next, status: "failed", phase: "", error: { code: event.code, message: event.message } };
    case "closed":
      return next.status === "streaming" ? { ...next, status: "interrupted", phase: "" } : next;
    default:
      return next;
  }
}

/** Tokens per second while writing; 0 when there is nothing to measure. */
function speedOf(usage) {
  const seconds = usage ? usage.total_s - usage.ttft_s : 0;
  return seconds > 0 && usage.completion_tokens > 1 ? (usage.completion_tokens - 1) / seconds : 0;
}
