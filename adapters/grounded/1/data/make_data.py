"""Writes train.jsonl and heldout.jsonl from the hand-written files beside it. Deterministic.

topics/*.txt hold short documents with slots ({a=14|30|45}), questions (?), answers (>), what an answer must
hold (!) and questions that the document does not answer (x). A row draws values for the slots, the
passages beside the right one, their order, and what else stands in the prompt. `{E}` names the
document's subject; `{E!}` is another subject of the same kind, which the passage does not answer.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
SLOT = re.compile(r"\{(\w+)=([^}]*)\}")
USE = re.compile(r"\{(\w+)(!?)\}")

MISSING = "The sources do not say anything about that."
NOTHING = "I found nothing about that in the sources."
OFFER = " I can ask a colleague if you like."
UNTOLD = "You have not told me that yet."
GENERAL_KNOWLEDGE = "The sources hold nothing on this. From general knowledge: "

SUPPORT = (
    "You answer customers' questions for a shop. Reply in the user's language, kindly and briefly.\n"
    "Answer from the listed sources alone and cite their numbers, like [1].\n"
    "If they do not hold the answer, say so and offer to ask a colleague."
)
OTHERS = (
    "You are a helpful assistant.",
    "You help the staff of a company. Answer from the sources and cite them by number.",
    "You are an assistant for visitors. Answer briefly from the sources, with citations like [1].",
    "Answer the question with the numbered sources. Say so when they do not hold the answer.",
)


@dataclass
class Fact:
    questions: list[str]
    answer: str = ""
    contains: list[str] = field(default_factory=list)


@dataclass
class Doc:
    topic: str
    file: str
    heading: list[str]
    text: str = ""
    facts: list[Fact] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def draw(self, rng: random.Random, **fixed: str) -> dict[str, str]:
        full = " > ".join([self.file, *self.heading, self.text])
        values = {key: rng.choice(choices.split("|")) for key, choices in SLOT.findall(full)}
        for key, choices in SLOT.findall(full):
            others = [choice for choice in choices.split("|") if choice != values[key]]
            values[f"{key}!"] = rng.choice(others) if others else values[key]
        return {**values, **fixed}


def fill(text: str, values: dict[str, str]) -> str:
    text = SLOT.sub(lambda match: values[match[1]], text)
    return USE.sub(lambda match: values[match[1] + match[2]], text)


def read_docs(path: Path) -> list[Doc]:
    docs: list[Doc] = []
    topic = ""
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            topic = line[3:]
        elif line.startswith("=== "):
            file, *heading = line[4:].split(" > ")
            docs.append(Doc(topic, file, heading))
        elif line.startswith("? "):
            docs[-1].facts.append(Fact([part.strip() for part in line[2:].split(" | ")]))
        elif line.startswith("> "):
            docs[-1].facts[-1].answer = line[2:]
        elif line.startswith("! "):
            docs[-1].facts[-1].contains = line[2:].split("; ")
        elif line.startswith("x "):
            docs[-1].unknown = [part.strip() for part in line[2:].split(" | ")]
        elif line.strip():
            docs[-1].text += ("\n" if docs[-1].text else "") + line
    for doc in docs:
        for fact in doc.facts:
            slots = [f"{{{key}}}" for key, _ in USE.findall(fact.answer) if key != "E"]
            fact.contains = fact.contains or slots[-1:] or re.findall(r"\d+", fact.answer)[:1]
            if not (fact.answer and fact.contains):
                raise ValueError(f"{path.name}, {doc.file}: {fact.questions[0]} lacks an answer or what it must hold")
    return docs


class Maker:
    def __init__(self, docs: list[Doc], rng: random.Random, injections: list[str], split: str) -> None:
        self.docs, self.rng, self.injections, self.split = docs, rng, injections, split

    # ── passages ──

    def source(
        self, doc: Doc, values: dict[str, str], inject: bool = False, avoid: Doc | None = None
    ) -> dict[str, object]:
        """A passage; some hold two documents, as a chunk of a longer file does. Never `avoid`."""
        text = fill(doc.text, values)
        near = [other for other in self.docs if other.topic == doc.topic and other not in (doc, avoid)]
        if near and self.rng.random() < 0.17:
            more = self.rng.choice(near)
            parts = [text, fill(more.text, more.draw(self.rng))]
            self.rng.shuffle(parts)
            text = self.rng.choice(("\n\n", "\n")).join(parts)
        if inject:
            place = self.rng.choice((0, 1))
            extra = self.rng.choice(self.injections)
            text = f"{text}\n{extra}" if place else f"{extra}\n{text}"
        source: dict[str, object] = {"file": fill(doc.file, values), "text": text}
        if doc.heading and self.rng.random() < 0.85:
            source["heading"] = [fill(part, values) for part in doc.heading]
        kind = self.rng.random()
        if kind < 0.6:
            start = self.rng.randint(1, 60)
            source["lines"] = [start, start + text.count("\n") + self.rng.randint(0, 4)]
        elif kind < 0.75:
            source["page"] = self.rng.randint(1, 30)
        return source

    def distractors(self, doc: Doc, count: int, *, twin: dict[str, str] | None = None) -> list[dict[str, object]]:
        rng = self.rng
        found: list[dict[str, object]] = []
        if twin is not None and count:
            values = doc.draw(rng)
            values["E"] = twin["E!"]
            found.append(self.source(doc, values))
        same = [other for other in self.docs if other.topic == doc.topic and other is not doc]
        far = [other for other in self.docs if other.topic != doc.topic]
        pool = rng.sample(same, min(len(same), count)) if rng.random() < 0.65 else []
        pool += rng.sample(far, count)
        for other in pool[: max(0, count - len(found))]:
            found.append(self.source(other, other.draw(rng), inject=rng.random() < 0.04, avoid=doc))
        return found

    def shuffled(
        self, gold: dict[str, object] | None, rest: list[dict[str, object]]
    ) -> tuple[list[dict[str, object]], int]:
        """The sources in random order, and the gold one's number."""
        everything = [*rest, *([gold] if gold else [])]
        self.rng.shuffle(everything)
        return everything, everything.index(gold) + 1 if gold else 0

    def count(self) -> int:
        return self.rng.choices((0, 1, 2, 3), (30, 36, 24, 10))[0]

    def common(self, row: dict[str, object], group: str) -> dict[str, object]:
        """Adds what any row may carry: the system text, memories that do not matter, the group."""
        rng = self.rng
        if self.split == "train" and "system" not in row:
            kind = rng.random()
            if kind < 0.4:
                row["system"] = SUPPORT
            elif kind < 0.52:
                row["system"] = rng.choice(OTHERS)
        if "memories" not in row and rng.random() < 0.12:
            row["memories"] = idle_memories(rng)
        return {**row, "group": group}

    # ── rows ──

    def fact(self, doc: Doc, fact: Fact) -> dict[str, object]:
        values = doc.draw(self.rng)
        twin = values if "E" in values and self.rng.random() < 0.4 else None
        gold = self.source(doc, values, inject=self.rng.random() < 0.05)
        count = self.count()
        sources, number = self.shuffled(gold, self.distractors(doc, max(count, 1 if twin else 0), twin=twin))
        return self.common(
            {
                "question": fill(self.rng.choice(fact.questions), values),
                "answer": cited(capital(fill(fact.answer, values)), number),
                "sources": sources,
                "check": {"contains": [fill(part, values) for part in fact.contains], "cites": [number]},
            },
            doc.topic,
        )

    def abstain(self, doc: Doc, kind: str) -> dict[str, object]:
        """kind: 'near' (the document does not say it), 'gone' (the document is not there), 'none' (no sources)."""
        rng = self.rng
        values = doc.draw(rng)
        if kind == "near" and doc.unknown:
            question = fill(doc.unknown[0] if rng.random() < 0.5 else rng.choice(doc.unknown), values)
            sources, _ = self.shuffled(self.source(doc, values), self.distractors(doc, rng.choice((0, 0, 1, 2))))
        else:
            question = fill(rng.choice(rng.choice(doc.facts).questions), values)
            sources = [] if kind == "none" else self.distractors(doc, rng.choice((1, 2, 2, 3)))
        row = self.common(
            {"question": question, "sources": sources, "check": {"cites": [], "abstains": True}}, doc.topic
        )
        row["answer"] = MISSING if sources else NOTHING
        if row.get("system") == SUPPORT:
            row["answer"] = str(row["answer"]) + OFFER
        return row

    def pair(self, doc: Doc) -> dict[str, object]:
        """Two questions in one message, of one document or of two."""
        rng = self.rng
        first, second = rng.sample(doc.facts, 2)
        values = doc.draw(rng)
        gold = self.source(doc, values)
        if rng.random() < 0.5:
            sources, number = self.shuffled(gold, self.distractors(doc, rng.choice((0, 1, 2))))
            numbers = [number, number]
            values2 = values
        else:
            other = rng.choice([each for each in self.docs if each is not doc])
            second, values2 = rng.choice(other.facts), other.draw(rng)
            gold2 = self.source(other, values2)
            sources = [gold, gold2]
            rng.shuffle(sources)
            numbers = [sources.index(gold) + 1, sources.index(gold2) + 1]
        link = rng.choice((" And ", " Also, "))
        question2 = fill(second.questions[0], values2)
        return self.common(
            {
                "question": fill(first.questions[0], values) + link + question2[0].lower() + question2[1:],
                "answer": " ".join((
                    cited(capital(fill(first.answer, values)), numbers[0]),
                    cited(capital(fill(second.answer, values2)), numbers[1]),
                )),
                "sources": sources,
                "check": {
                    "contains": [fill(part, values) for part in first.contains]
                    + [fill(part, values2) for part in second.contains],
                    "cites": sorted(set(numbers)),
                },
            },
            doc.topic,
        )  # fmt: skip

    def follow_up(self, doc: Doc) -> dict[str, object]:
        """A second turn on the same document, whose passages are shown again in another order."""
        rng = self.rng
        first, second = rng.sample(doc.facts, 2)
        values = doc.draw(rng)
        gold = self.source(doc, values)
        before, old = self.shuffled(gold, self.distractors(doc, rng.choice((0, 1))))
        now, number = self.shuffled(gold, self.distractors(doc, rng.choice((0, 1, 2))))
        question = fill(rng.choice(second.questions), values)
        if rng.random() < 0.5:
            question = f"And {question[0].lower()}{question[1:]}"
        row: dict[str, object] = {
            "history": [{
                "question": fill(rng.choice(first.questions), values),
                "answer": cited(capital(fill(first.answer, values)), old),
                "sources": before,
            }],
            "question": question,
            "answer": cited(capital(fill(second.answer, values)), number),
            "sources": now,
            "check": {"contains": [fill(part, values) for part in second.contains], "cites": [number]},
        }  # fmt: skip
        return self.common({**row, "memories": []}, doc.topic)


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def cited(answer: str, number: int) -> str:
    """The answer with `[n]` before its full stop."""
    body = answer[:-1] if answer.endswith(".") else answer
    return f"{body} [{number}]."


# ── memory and chat ──────────────────────────────────────────────────────────────────────────────


def sections(path: Path) -> list[list[str]]:
    parts: list[list[str]] = []
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            parts.append([])
        elif line.strip():
            parts[-1].append(line)
    return parts


SLOTTED, VALUES, IDLE, USES, WITH_SOURCE = sections(HERE / "topics" / "memory.txt")
SMALL, WORLD, TALKS = sections(HERE / "topics" / "chat.txt")
BANK = {key: values.split(", ") for key, values in (line.split(" = ") for line in VALUES)}


def idle_memories(rng: random.Random, count: int = 0) -> list[str]:
    kinds = rng.sample([line for line in SLOTTED if "{pet}" not in line], 2)
    lines = [draw_memory(line, rng)[0] for line in kinds] + rng.sample(IDLE, 2)
    rng.shuffle(lines)
    return lines[: count or rng.choice((1, 2, 3))]


def draw_memory(line: str, rng: random.Random) -> tuple[str, str, str, str]:
    """(memory, question, answer, contains) with values drawn."""
    texts, questions, answer, contains = line.split(" | ")
    values = {key: rng.choice(choices) for key, choices in BANK.items()}

    def put(text: str) -> str:
        return USE.sub(lambda match: values[match[1]], text)

    return put(rng.choice(texts.split(" ;; "))), put(rng.choice(questions.split(" ;; "))), put(answer), put(contains)


def memory_rows(rng: random.Random, maker: Maker, slotted: list[str], times: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for line in slotted * times:
        memory, question, answer, contains = draw_memory(line, rng)
        others = [text for text in idle_memories(rng, 3) if same_kind(text, slotted, line)][: rng.choice((0, 1, 2, 3))]
        lines = [memory, *others]
        rng.shuffle(lines)
        row: dict[str, object] = {
            "question": question, "answer": answer, "memories": lines,
            "check": {"contains": [contains], "cites": []},
        }  # fmt: skip
        if rng.random() < 0.45:
            doc = rng.choice(maker.docs)
            row["sources"] = maker.distractors(doc, rng.choice((1, 1, 2))) if rng.random() < 0.4 else []
        rows.append(maker.common(row, f"memory {line[:20]}"))
    for line in slotted * max(1, times // 4):  # asked for what was never told
        _, question, _, _ = draw_memory(line, rng)
        lines = [text for text in idle_memories(rng, 3) if same_kind(text, slotted, line)][:2]
        row = {"question": question, "answer": UNTOLD, "check": {"cites": [], "abstains": True}}
        row["memories"] = lines if rng.random() < 0.6 else []
        if rng.random() < 0.4:
            row["sources"] = []
        rows.append(maker.common(row, f"memory {line[:20]}"))
    return rows


def same_kind(text: str, slotted: list[str], line: str) -> bool:
    """Whether `text` says nothing about what `line` asks: no line twice about the name, the city, …"""
    first = line.partition(" | ")[0].split(" ;; ")
    stems = [re.sub(r"\{.*", "", part).strip().lower() for part in first]
    return not any(stem and text.lower().startswith(stem) for stem in stems)


def use_rows(rng: random.Random, maker: Maker) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for line in USES * 2:
        memory, question, answer, contains = line.split(" | ")
        lines = [memory, *rng.sample(IDLE, rng.choice((0, 1)))]
        row: dict[str, object] = {
            "question": question, "answer": answer, "memories": lines, "check": {"contains": [contains], "cites": []},
        }  # fmt: skip
        if rng.random() < 0.5:
            row["sources"] = []
        rows.append(maker.common(row, "use of memory"))
    for line in WITH_SOURCE * 5:
        memory, text, question, answer, contains = line.split(" | ")
        doc = Doc("use of memory", f"{rng.choice(('prices', 'info', 'notes'))}.md", [], text)
        values = Doc("", "", [], memory + text).draw(rng)
        gold = maker.source(doc, values)
        sources, number = maker.shuffled(gold, maker.distractors(maker.docs[0], rng.choice((0, 1))))
        rows.append(maker.common({
            "question": question, "answer": fill(answer, values).replace("[1]", f"[{number}]"),
            "memories": [fill(memory, values)], "sources": sources,
            "check": {"contains": [fill(contains, values)], "cites": [number]},
        }, "use of memory and sources"))  # fmt: skip
    return rows


def chat_rows(rng: random.Random, maker: Maker) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for line in SMALL:
        question, answer = line.split(" | ")
        rows.append(maker.common({"question": question, "answer": answer}, "chat"))
        row: dict[str, object] = {"question": question, "answer": answer, "sources": []}
        if rng.random() < 0.35:
            row["sources"] = maker.distractors(rng.choice(maker.docs), 1)
        rows.append(maker.common(row, "chat"))
    for line in WORLD:
        question, answer = line.split(" | ")
        rows.append(maker.common({"question": question, "answer": answer}, "chat"))
        row = maker.common({"question": question, "answer": "", "sources": []}, "chat")
        row["answer"] = NOTHING + OFFER if row.get("system") == SUPPORT else GENERAL_KNOWLEDGE + answer
        rows.append(row)
    for line in TALKS:
        turns = [tuple(part.strip().split(" | ")) for part in line.split("||")]
        for searched in (False, True):
            extra: dict[str, object] = {"sources": []} if searched else {}
            history = [{"question": asked, "answer": said, **extra} for asked, said in turns[:-1]]
            rows.append(maker.common({
                "history": history, "question": turns[-1][0], "answer": turns[-1][1], "memories": [], **extra,
            }, "chat"))  # fmt: skip
    for name in BANK["name"]:
        rows.append(maker.common({"question": f"My name is {name}.", "memories": [],
                                  "answer": f"Nice to meet you, {name}! How can I help you?"}, "chat"))  # fmt: skip
        greeting = rng.choice(("Hello", "Hi!", "hi there", "Good morning"))
        row = {"question": greeting, "memories": [f"The user's name is {name}."],
               "answer": f"Hello {name}! How can I help you?"}  # fmt: skip
        if rng.random() < 0.5:
            row["sources"] = []
        rows.append(maker.common(row, "chat"))
    for drink in BANK["drink"]:
        rows.append(maker.common({"question": f"Remember that I prefer {drink}.", "sources": [],
                                  "answer": f"I will remember that you prefer {drink}."}, "chat"))  # fmt: skip
    return rows


def source_rows(maker: Maker, facts: int, pairs: float, follow_ups: float, abstains: float) -> list[dict[str, object]]:
    rng = maker.rng
    rows: list[dict[str, object]] = []
    for doc in maker.docs:
        for fact in doc.facts:
            rows += [maker.fact(doc, fact) for _ in range(facts)]
        total = len(doc.facts) * facts
        for share, make in ((pairs, maker.pair), (follow_ups, maker.follow_up)):
            rows += [make(doc) for _ in range(int(total * share + rng.random()))]
        for _ in range(int(total * abstains + rng.random())):
            rows.append(maker.abstain(doc, rng.choices(("near", "gone", "none"), (6, 3, 1))[0]))
    return rows


def write(path: Path, rows: list[dict[str, object]], rng: random.Random) -> None:
    rng.shuffle(rows)
    path.write_text("".join(json.dumps(tidy(row), ensure_ascii=False) + "\n" for row in rows))
    print(f"{path.name}: {len(rows)} rows")


def tidy(row: dict[str, object]) -> dict[str, object]:
    order = ("question", "answer", "sources", "memories", "history", "system", "check", "group")
    return {key: row[key] for key in order if key in row and not (key == "memories" and not row[key])}


def main() -> None:
    rng = random.Random(7)
    docs = read_docs(HERE / "topics" / "train_1.txt") + read_docs(HERE / "topics" / "train_2.txt")
    maker = Maker(docs, rng, (HERE / "inject.txt").read_text().splitlines(), "train")
    known, unseen = SLOTTED[:-3], SLOTTED[-3:]  # Wi-Fi, parking level and shoe size are only ever held out
    rows = source_rows(maker, 2, 0.09, 0.09, 0.42)
    rows += memory_rows(rng, maker, known, 12) + use_rows(rng, maker) + chat_rows(rng, maker)
    write(HERE / "train.jsonl", rows, rng)

    rng = random.Random(11)
    unseen_lines = (HERE / "inject_heldout.txt").read_text().splitlines()
    held = Maker(read_docs(HERE / "topics" / "heldout.txt"), rng, unseen_lines, "heldout")
    rows = source_rows(held, 2, 0.08, 0.08, 0.42) + memory_rows(rng, held, unseen, 8)
    write(HERE / "heldout.jsonl", rows, rng)


if __name__ == "__main__":
    main()
