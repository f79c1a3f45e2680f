"""What a model's cosines say, measured once on texts whose relation is known: `data/pairs.jsonl`, in English and
Korean, and `data/languages.jsonl`, questions and their passages in fourteen other languages.

Vectors of a language model lie in a narrow cone (Ethayarajh, 2019), in a part of it that depends on the language and on
the prompt, so that unrelated texts have cosines of .8 in one model and 0 in another, and texts of two languages less
than those of one. The mean vector of each script is taken away first (Mu & Viswanath, 2018, without the components):
what is left has cosines near 0 where nothing is shared. A logistic curve for each relation, one for pairs of one
language and one for pairs of two, then gives a likelihood, with even odds before the cosine is known.

Knows nothing of models or files of them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.relations import Relation, TextRole
from server.words import detect_script, script_shares

DATA: Final = Path(__file__).parent / "data"
SHRINK: Final = 10  # texts' worth of the mean of all scripts in that of a script that few texts tell of
KNOWN_AUC: Final = 0.9  # of a question's own passage over others, from which on a language counts as known
LANGUAGES: Final = ("en", "ko")
_QUESTIONS: Final = ("question", "paraphrase", "sibling")
_STATEMENTS: Final = ("statement", "restated", "related")
_ANY: Final = "any"  # the mean of all scripts that were measured

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str], TextRole], Vectors]
Curve = tuple[float, float]
"""Slope and intercept of the log odds over a cosine."""
_NEVER: Final = (0.0, -8.0)  # of two languages, one of which the model does not know


@dataclass(frozen=True)
class Calibration:
    """`means`: [dimension] by role and script. `curves`: by relation, and whether the two texts are of two languages.
    `known`: scripts in which questions find their passages, with how surely (AUC)."""

    means: Mapping[tuple[TextRole, str], Vectors] = field(default_factory=dict)
    curves: Mapping[tuple[Relation, bool], Curve] = field(default_factory=dict)
    known: Mapping[str, float] = field(default_factory=dict)

    def centred(self, vectors: Vectors, texts: Sequence[str], role: TextRole) -> Vectors:
        """Unit vectors less the mean of what each text is written in, and of unit length again."""
        if not self.means or not len(texts):
            return vectors
        found = vectors - np.stack([self._mean(text, role) for text in texts])
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), np.float32)

    def likelihood(
        self, relation: Relation, cosines: Vectors, *, crossing: NDArray[np.bool_] | bool = False
    ) -> Vectors:
        """In 0..1, of each cosine; `crossing`: where the two texts are of two languages."""
        one, two = (self._odds(relation, cosines, across) for across in (False, True))
        odds = np.where(crossing, two, one)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), np.float32)

    def knows(self, text: str) -> bool:
        """Whether texts of its script find each other; a script that was not measured counts as known, one without a
        letter does not."""
        script = detect_script(text)
        return bool(script) and self.known.get(script, 1.0) >= KNOWN_AUC

    def _odds(self, relation: Relation, cosines: Vectors, crossing: bool) -> NDArray[np.float64]:
        slope, intercept = self.curves[relation, crossing]
        return slope * np.asarray(cosines, np.float64) + intercept

    def _mean(self, text: str, role: TextRole) -> Vectors:
        measured = {name: share for name, share in script_shares(text).items() if (role, name) in self.means}
        total = sum(measured.values())
        if not total:
            return self.means[role, _ANY]
        return np.asarray(sum(share / total * self.means[role, name] for name, share in measured.items()), np.float32)

    # ── as bytes ─────────────────────────────────────────────────────────────────────────────────

    def to_bytes(self) -> bytes:
        """An .npz archive."""
        arrays: dict[str, NDArray[np.generic]] = {
            f"mean {role} {script}": mean for (role, script), mean in self.means.items()
        }
        arrays |= {
            f"curve {relation} {crossing:d}": np.array(curve) for (relation, crossing), curve in self.curves.items()
        }
        arrays |= {f"known {script}": np.array(auc) for script, auc in self.known.items()}
        held = io.BytesIO()
        np.savez(held, **arrays)  # type: ignore[arg-type]
        return held.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """Raises ValueError where they are not what `to_bytes` gives."""
        means, curves, known = {}, {}, {}
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for name in arrays.files:
                what, *of = name.split(" ")
                if what == "mean":
                    means[TextRole(of[0]), of[1]] = arrays[name].astype(np.float32)
                elif what == "curve":
                    slope, intercept = arrays[name].tolist()
                    curves[Relation(of[0]), of[1] == "1"] = (slope, intercept)
                else:
                    known[of[0]] = float(arrays[name])
        if {(relation, crossing) for relation in Relation for crossing in (False, True)} - set(curves):
            raise ValueError("it has not all curves")
        return cls(means, curves, known)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


def read_pairs() -> list[dict[str, str]]:
    return _read("pairs.jsonl")


def read_languages() -> list[dict[str, str]]:
    """A question and its passage each, in fourteen other languages."""
    return _read("languages.jsonl")


def _read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def calibrate(embed: Embed, pairs: Sequence[Mapping[str, str]] | None = None) -> Calibration:
    """`embed` gives the model's own unit vectors. Half a minute on one thread."""
    records = pairs or read_pairs()
    texts = {
        (role, f"{key}_{language}"): [record[f"{key}_{language}"] for record in records]
        for role, keys in (
            (TextRole.QUERY, _QUESTIONS),
            (TextRole.PASSAGE, ("passage",)),
            (TextRole.TEXT, (*_QUESTIONS, *_STATEMENTS)),
        )
        for key in keys
        for language in LANGUAGES
    }
    raw = {key: embed(values, key[0]) for key, values in texts.items()}
    means: dict[tuple[TextRole, str], Vectors] = {}
    for role in TextRole:
        by_script = {
            detect_script(texts[key][0]): np.concatenate([raw[other] for other in raw if _is_like(other, key)]).mean(0)
            for key in raw
            if key[0] is role
        }
        means |= {(role, script): mean for script, mean in by_script.items()}
        means[role, _ANY] = np.mean(list(by_script.values()), axis=0)
    others = read_languages()
    means |= _other_means(embed, others, means)
    centred = Calibration(means)
    vectors = {key: centred.centred(values, texts[key], key[0]) for key, values in raw.items()}
    known = {}
    for language in LANGUAGES:
        own, foreign = _cosines(Relation.ANSWER, False, vectors, (language,))
        known[detect_script(records[0][f"passage_{language}"])] = area_under_curve(own, foreign)
    languages = [one for one, auc in zip(LANGUAGES, known.values(), strict=True) if auc >= KNOWN_AUC] or LANGUAGES
    curves = {}
    for relation in Relation:
        curves[relation, False] = _fit(*_cosines(relation, False, vectors, languages))
        crosses = len(languages) > 1
        curves[relation, True] = _fit(*_cosines(relation, True, vectors, languages)) if crosses else _NEVER
    return Calibration(means, curves, _other_scripts(embed, others, centred) | known)


def _other_means(
    embed: Embed, records: Sequence[Mapping[str, str]], means: Mapping[tuple[TextRole, str], Vectors]
) -> dict[tuple[TextRole, str], Vectors]:
    """Of scripts that the pairs are not written in."""
    found: dict[tuple[TextRole, str], Vectors] = {}
    for script in dict.fromkeys(detect_script(record["passage"]) for record in records):
        if (TextRole.PASSAGE, script) in means:
            continue
        written = [record for record in records if detect_script(record["passage"]) == script]
        for role, key in ((TextRole.QUERY, "question"), (TextRole.PASSAGE, "passage"), (TextRole.TEXT, "question")):
            mean = embed([record[key] for record in written], role).mean(0)
            weight = len(written) / (len(written) + SHRINK)
            found[role, script] = np.asarray(weight * mean + (1 - weight) * means[role, _ANY], np.float32)
    return found


def _other_scripts(embed: Embed, records: Sequence[Mapping[str, str]], centred: Calibration) -> dict[str, float]:
    """How surely questions find their passages, by script: the mean of its languages."""
    found: dict[str, list[float]] = {}
    for language in dict.fromkeys(record["language"] for record in records):
        written = [record for record in records if record["language"] == language]
        sides = []
        for role, key in ((TextRole.QUERY, "question"), (TextRole.PASSAGE, "passage")):
            texts = [record[key] for record in written]
            sides.append(centred.centred(embed(texts, role), texts, role))
        cosines = sides[0] @ sides[1].T
        own = np.eye(len(cosines), dtype=bool)
        found.setdefault(detect_script(written[0]["passage"]), []).append(area_under_curve(cosines[own], cosines[~own]))
    return {script: float(np.mean(each)) for script, each in found.items()}


def _is_like(one: tuple[TextRole, str], other: tuple[TextRole, str]) -> bool:
    """Of one role and language."""
    return one[0] is other[0] and one[1].rpartition("_")[2] == other[1].rpartition("_")[2]


def _cosines(
    relation: Relation,
    crossing: bool,
    vectors: Mapping[tuple[TextRole, str], Vectors],
    languages: Sequence[str],
) -> tuple[Vectors, Vectors]:
    """Of pairs that have the relation, and of pairs that have not."""
    related, unrelated = _RELATIONS[relation]
    role, other_role = (TextRole.QUERY, TextRole.PASSAGE) if relation is Relation.ANSWER else (TextRole.TEXT,) * 2
    have, have_not = [], []
    for one in languages:
        for other in languages if crossing else (one,):
            if crossing and one == other:
                continue
            for a, b in related:
                left, right = vectors[role, f"{a}_{one}"], vectors[other_role, f"{b}_{other}"]
                have.append((left * right).sum(1))
                have_not.append((left @ right.T)[~np.eye(len(left), dtype=bool)])
            for a, b in unrelated:
                near = (vectors[role, f"{a}_{one}"] * vectors[other_role, f"{b}_{other}"]).sum(1)
                have_not.append(np.repeat(near, len(near) - 1))  # as much as all those of other subjects
    return np.concatenate(have), np.concatenate(have_not)


_RELATIONS: Final[Mapping[Relation, tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]]] = {
    Relation.ANSWER: ((("question", "passage"), ("paraphrase", "passage")), ()),
    Relation.SUBJECT: (
        (("statement", "restated"), ("statement", "related"), ("question", "paraphrase"), ("question", "sibling")), ()
    ),
    Relation.MEANING: (
        (("statement", "restated"), ("question", "paraphrase")), (("statement", "related"), ("question", "sibling"))
    ),
}  # fmt: skip


def _fit(have: Vectors, have_not: Vectors) -> Curve:
    """Logistic regression by Newton's method, both sides weighing the same, with a little of a ridge."""
    x = np.concatenate([have, have_not]).astype(np.float64)
    y = np.concatenate([np.ones(len(have)), np.zeros(len(have_not))])
    weight = np.where(y > 0, 0.5 / len(have), 0.5 / len(have_not))
    rows = np.stack([x, np.ones_like(x)], axis=1)
    found = np.zeros(2)
    ridge = np.diag([1e-5, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        gradient = rows.T @ (weight * (y - p)) - ridge @ found
        hessian = (rows * (weight * p * (1 - p))[:, None]).T @ rows + ridge
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        found += step
        if float(np.abs(step).max()) < 1e-8:
            break
    return float(found[0]), float(found[1])


def area_under_curve(have: Vectors, have_not: Vectors) -> float:
    """How often one of `have` is greater than one of `have_not`; equal ones count half."""
    ordered = np.sort(have_not)
    below = np.searchsorted(ordered, have, side="left") + np.searchsorted(ordered, have, side="right")
    return float(below.mean() / (2 * len(have_not)))
