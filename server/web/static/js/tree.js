// The message tree: which branch is shown and which siblings a message has. Pure; messages are
// {id, parent_id}, oldest first, and choices maps a parent's id ("" for the root) to the shown child.

const keyOf = (parentId) => parentId ?? "";

/** Children of each parent, in the order of the messages. A message whose parent is unknown hangs at the root. */
export function childrenOf(messages) {
  const ids = new Set(messages.map((message) => message.id));
  const children = new Map();
  for (const message of messages) {
    const key = ids.has(message.parent_id) ? message.parent_id : "";
    if (!children.has(key)) children.set(key, []);
    children.get(key).push(message.id);
  }
  return children;
}

/** Ids of the shown branch, root first. Where nothing is chosen, the newest child is shown. */
export function branch(messages, choices) {
  const children = childrenOf(messages);
  const ids = [];
  const seen = new Set();
  let parent = "";
  while (children.has(parent)) {
    const options = children.get(parent);
    const chosen = options.includes(choices[parent]) ? choices[parent] : options[options.length - 1];
    if (seen.has(chosen)) break; // a cycle cannot come from the server; never hang on one
    seen.add(chosen);
    ids.push(chosen);
    parent = chosen;
  }
  return ids;
}

/** {ids, index} of the messages that share a parent with `id`. */
export function siblings(messages, id) {
  for (const ids of childrenOf(messages).values()) {
    const index = ids.indexOf(id);
    if (index >= 0) return { ids: ids, index };
  }
  return { ids: [id], index: 0 };
}

/** Choices under which `id` is on the shown branch; the rest stays as it was. */
export function choicesFor(messages, choices, id) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const next = { ...choices };
  const seen = new Set();
  for (let at = byId.get(id); at && !seen.has(at.id); at = byId.get(at.parent_id)) {
    seen.add(at.id);
    next[byId.has(at.parent_id) ? keyOf(at.parent_id) : ""] = at.id;
  }
  return next;
}
