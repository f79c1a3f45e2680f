"""Writes train.jsonl and heldout.jsonl from train.txt and heldout.txt. Deterministic.

Each file holds its own products, clauses, openers and closers, and whole reviews by label; nothing is
shared between the two. `+` is positive, `-` negative, `~` mixed (a good and a bad point).
"""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
LABELS = {"+": "positive", "-": "negative", "~": "mixed"}
BUT = (" but ", ", but ", ", yet ", ". However, ", "; on the other hand ", ", although ", ". Then again, ")
AND = (" and ", ". ", ", ", ". Also, ", "; ", " and ")


class Bank:
    def __init__(self, path: Path) -> None:
        self.topics: list[tuple[str, list[str], list[str], list[str]]] = []
        self.openers: dict[str, list[str]] = {}
        self.closers: dict[str, list[str]] = {}
        self.whole: dict[str, list[str]] = {label: [] for label in LABELS.values()}
        part = ""
        for line in path.read_text().splitlines():
            if line.startswith("## "):
                part = line[3:]
            elif part in self.whole and line:
                self.whole[part].append(line)
            elif part == "clauses" and line.startswith("= "):
                name, names = line[2:].split(" | ")
                self.topics.append((name, names.split(", "), [], []))
            elif part == "clauses" and line:
                self.topics[-1][2 if line[0] == "+" else 3].extend(split(line[2:]))
            elif line:
                (self.openers if part == "openers" else self.closers)[line[0]] = split(line[2:])


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def joined(clauses: list[str], rng: random.Random) -> str:
    text = clauses[0]
    for clause in clauses[1:]:
        link = rng.choice(AND)
        text += link + (capital(clause) if link == ". " else clause)
    return text


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def review(bank: Bank, topic: tuple[str, list[str], list[str], list[str]], label: str, rng: random.Random) -> str:
    _, names, good, bad = topic
    if label == "~":
        sides = [joined(rng.sample(points, rng.choice((1, 1, 2))), rng) for points in (good, bad)]
        rng.shuffle(sides)
        body = capital(sides[0]) + rng.choice(BUT) + sides[1]
    else:
        own, other = (good, bad) if label == "+" else (bad, good)
        body = capital(joined(rng.sample(own, rng.choice((1, 2, 2, 3))), rng))
        if rng.random() < 0.12:  # the other side, denied or expected
            feared = rng.choice(other)
            if label == "+":
                body = f"I had read that {feared}. Not true for me: {body[0].lower() + body[1:]}"
            else:
                body = f"They claim that {feared}. Nonsense: {body[0].lower() + body[1:]}"
    if rng.random() < 0.3:
        name = rng.choice(names)
        body = f"{capital(name)}: {body[0].lower() + body[1:]}" if rng.random() < 0.5 else f"About {name}. {body}"
    body += rng.choice((".", ".", "!", "..."))
    if rng.random() < 0.45:
        body = f"{rng.choice(bank.openers[label])} {body}"
    if rng.random() < 0.4:
        body = f"{body} {rng.choice(bank.closers[label])}"
    style = rng.random()
    if style < 0.1:
        body = body.lower()
    elif style < 0.13:
        body = body.upper()
    return body


def rows(bank: Bank, each: int, rng: random.Random) -> list[dict[str, object]]:
    made: list[dict[str, object]] = []
    for mark, label in LABELS.items():
        made += [{"question": text, "answer": label, "group": f"whole {index % 12}"}
                 for index, text in enumerate(bank.whole[label])]  # fmt: skip
        seen: set[str] = set()
        index = 0
        while len(seen) < each - len(bank.whole[label]):
            topic = bank.topics[index % len(bank.topics)]
            index += 1
            text = review(bank, topic, mark, rng)
            if text not in seen:
                seen.add(text)
                made.append({"question": text, "answer": label, "group": topic[0]})
    for row in made:
        if rng.random() < 0.12:
            row["question"] = rng.choice(("Review: ", "Review: ", "Sentiment of this review: ")) + str(row["question"])
    rng.shuffle(made)
    return made


def main() -> None:
    for name, each, seed in (("train", 270, 5), ("heldout", 80, 6)):
        made = rows(Bank(HERE / f"{name}.txt"), each, random.Random(seed))
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))
        print(f"{name}.jsonl: {len(made)} rows")


if __name__ == "__main__":
    main()
