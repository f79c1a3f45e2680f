"""Words for lexical search, in any script, without a dictionary.

Words of scripts with spaces are folded and lightly stemmed; runs of Korean, Chinese, Japanese and
Thai become overlapping pairs of characters, which finds a Korean noun whatever particle follows it.
For the evidence gate a question is read as its content words, each with the terms that show it in
a passage. Pure functions; knows nothing of indexes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from server.words.normalization import normalize
from server.words.stopwords import ENGLISH, KOREAN

_PAIRED = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_TOKEN = re.compile(
    rf"(?P<paired>[{_PAIRED}々〆]+)|(?P<number>\d+(?:[.,]\d+)*)|(?P<word>[^\W\d_{_PAIRED}]+)", re.UNICODE
)
_APOSTROPHE = re.compile(r"(?<=\w)['’](?:s|t|re|ve|ll|d|m)\b")

VERB_WEIGHT = 0.4

_HANGUL = re.compile(r"[가-힣]+")
_KANJI_OR_KATAKANA = re.compile(r"[\u30a0-\u30ff\u3400-\u4dbf\u4e00-\u9fff々]+")
_KOREAN_REQUEST = re.compile(r"(?:주세요|줘요?|주시겠어요|주실래요|주십시오|줄래)$")
_KOREAN_FUNCTION = re.compile(
    r"(?:있|없|하|되|해야|가능하|어떻게|무엇|얼마|언제|어디)"
    r"(?:나요|니까|습니까|는가요?|요|어요|을까요?|까요|는지|인가요?|죠|지)?"
    r"|합니[까다]|됩니[까다]|입니[까다]|인가요?|인지|[하되]나요|[돼해될할]요|[될할]까요|가능(?:한가요|해요|할까요)"
)
_PARTICLE = re.compile(
    r"(?:으로부터|에서부터|에게서|에서는|에서도|으로는|으로도|까지는|이라는|이라고|인가요|이에요|이예요|입니까|입니다"
    r"|하나요|되나요|에서|에게|으로|까지|부터|처럼|보다|이나|이란|이야|라는|라고|한테|하고|마다|조차|밖에|에는|에도"
    r"|과의|와의|인가|인지|예요|은|는|이|가|을|를|에|의|로|와|과|도|만|야|나)$"
)
# 신청해야, 반품하려면, 취소된: a noun made a verb; the noun is what is asked for
_NOUN_VERB = re.compile(r"([가-힣]{2,})[하해할한합했되될된됩됐돼][가-힣]{0,4}")
# 걸리나요, 깨져서, 받으려면: other verbs, whose endings hide the word from character pairs
_VERB = re.compile(r"[가-힣]{2,}(?:[요다까]|는지|려면|[어아져여]서|지만|는데|은데)|[가-힣]+(?:으면|[해돼어아여]야)")
# 아이들은요, 병가요, 언제까지요: a polite end after a noun and its particle
_POLITE = re.compile(r"(?P<noun>[가-힣]+(?:은|는|도|만|을|를|로|까지|부터|한테|에게|에서|하고|보다)|[가-힣]{2,}이)요")
# 빌릴 수 있나요, 써도 되나요: the word before is a verb
_POSSIBLE = re.compile(r"[가-힣]+ (?=수가? ?[있없])|[가-힣]+도 ?(?=[되돼될]|괜찮)")
FOLLOW_UP_WORDS = 3  # a message with more content words than this is complete by itself
_PRONOUN = re.compile(
    r"\b(?:it|its|that|this|those|these|they|them|there|one|ones)\b"
    r"|그거|그것|그건|그게|이거|이것|이건|거기|それ|那个|这个",
    re.IGNORECASE,
)
_CONTINUATION = re.compile(
    r"^\W*(?:and|but|or|so|also|what about|how about|what if|why|then|그럼|그러면|그리고|그런데|근데|또)\b"
    r"|^\W*(?:[가-힣]+ )?[가-힣]+(?:은|는|도|면)요?\W*$",  # 월요일은요?
    re.IGNORECASE,
)
_FRAGMENT = re.compile(
    r"\W*(?:만 ?)?\d[\d.,]*\s*(?:\w+\W*){0,2}"  # 12 years old
    r"|\W*(?:(?:at|by|for|from|in|on|until) )?(?:what|which|how (?:many|much|long|often)) \w+\W*"  # at what time?
    r"|\W*(?:몇|무슨|어느|어떤) ?\w+\W*",  # 몇 시예요?
    re.IGNORECASE,
)
# "not returns, exchanges"; "반품 말고 교환이요": the word that the user retracts
_RETRACTED = re.compile(
    r"\bnot (?:the |a |an |for |in |on |to )*(?P<denied>\w+)(?:\W*,| but\b)"
    r"|,\s*not (?:the |a |an |for )*(?P<late>\w+)\W*$"
    r"|(?P<word>[가-힣]+)\s+(?:말고|아니고|아니라)(?=\s)",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"(?:\W|\b(?:ok(?:ay)?|thanks?|thank you|very much|so much|a lot|great|nice|cool|perfect|hi|hello|hey|bye|goodbye"
    r"|yes|no|sure|alright|good|understood|got it|i see|sounds|never ?mind|that is all)\b"
    r"|네|넵|예|응|아|아하|아니요?|좋아요?|좋습니다|그래요?|그렇군요|그렇구나|맞아요|괜찮아요|됐어요"
    r"|안녕(?:하세요|히 계세요)?|(?:정말 )?(?:감사|고맙)(?:합니다|해요|드려요|드립니다|습니다)|고마워요?"
    r"|(?:잘 )?알(?:겠|았)(?:습니다|어요)|[ㅋㅎㅠㅇㄴ]+"
    r"|ありがとう(?:ございます)?|はい|いいえ|谢谢|好的?|不用了)*",
    re.IGNORECASE,
)
_CHINESE_FUNCTION = re.compile(
    r"什么|怎么|多少|怎样|如何|哪[里个些]|为什么|需要|[的了吗呢吧是在我你您他她它有和与或请能可以会要就都也很这那几个]"
)


@dataclass(frozen=True, slots=True)
class ContentWord:
    """A content word of a question, the index terms that show it in a passage, and its weight."""

    word: str
    terms: tuple[str, ...]
    weight: float = 1.0


def terms(text: str) -> list[str]:
    """The index terms of a text, in order, repeats included."""
    found: list[str] = []
    for kind, token in _tokens(text):
        if kind == "paired":
            found += pairs(token)
        elif kind == "number":
            found.append(_number(token))
        elif token not in ENGLISH:
            found.append(stem(token))
    return found


def term_counts(text: str) -> Counter[str]:
    """How often each index term stands in a text."""
    return Counter(terms(text))


def content_words(question: str) -> tuple[ContentWord, ...]:
    """The content words of a question: no function words, no polite forms, each word once."""
    found: dict[str, ContentWord] = {}
    verbs = {match[0].strip() for match in _POSSIBLE.finditer(question)}
    for kind, token in _tokens(question):
        if kind == "paired":
            for word, weight in _content_runs(token):
                found.setdefault(word, ContentWord(word, tuple(pairs(word)), VERB_WEIGHT if token in verbs else weight))
        elif kind == "number":
            found.setdefault(token, ContentWord(token, (_number(token),)))
        elif token not in ENGLISH:
            word = stem(token)
            found.setdefault(word, ContentWord(word, (word,)))
    if all(word.isdigit() and len(word) < 3 for word in found):
        return ()  # "2 + 2": small numbers alone are in every text
    return tuple(found.values())


def is_courtesy(text: str) -> bool:
    """Thanks, greetings, a bare yes or no, nothing at all: there is nothing to look up."""
    return bool(_COURTESY.fullmatch(text))


def is_follow_up(text: str) -> bool:
    """The message may need the one before it: it is short, or says itself that it goes on ("and for children?")."""
    return is_explicit_follow_up(text) or len(content_words(text)) <= FOLLOW_UP_WORDS


def is_explicit_follow_up(text: str) -> bool:
    """The message says itself that it goes on: "and for children?", "is it paid?", "월요일은요?"."""
    return bool(_CONTINUATION.search(text) or _PRONOUN.search(text) or _FRAGMENT.fullmatch(text))


def needs_subject(text: str) -> bool:
    """A pronoun in few words, a mere value or "at what time?": its subject is in the message before."""
    return bool(_PRONOUN.search(text) or _FRAGMENT.fullmatch(text)) and len(content_words(text)) <= FOLLOW_UP_WORDS


def without_retracted(text: str, earlier: str) -> tuple[str, str]:
    """Both messages without a word of the earlier one that the later one retracts: "not returns, exchanges"."""
    earlier_words = {word.terms for word in content_words(earlier)}
    for match in _RETRACTED.finditer(text):
        retracted = content_words(next(filter(None, match.groups())))
        if retracted and all(word.terms in earlier_words for word in retracted):
            retracted_terms = {word.terms for word in retracted}
            earlier = " ".join(
                word for word in earlier.split() if not retracted_terms & {unit.terms for unit in content_words(word)}
            )
            text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    return text, earlier


def fold(text: str) -> str:
    """In one Unicode form and one case (NFKC, casefold), as texts are compared."""
    return normalize(text, "NFKC").casefold()


def pairs(run: str) -> list[str]:
    """'환불은' → 환불, 불은; a single character stays itself."""
    return [run[at : at + 2] for at in range(len(run) - 1)] or [run]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """English endings off, so that return, returns, returned and returning meet. Other words pass."""
    if len(word) < 4 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "edly", "ed", "ly"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3 and re.search("[aeiouy]", base):
            word = base[:-1] if base[-1] == base[-2] and base[-1] not in "lsz" and ending != "ly" else base
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def _tokens(text: str) -> list[tuple[str, str]]:
    folded = _APOSTROPHE.sub("", fold(text))
    return [(match.lastgroup or "", _plain(match[0])) for match in _TOKEN.finditer(folded)]


def _plain(token: str) -> str:
    """Without accents (café = cafe). Only for scripts where that is a habit of typing, not another word."""
    if token.isascii() or not "\u00c0" <= max(token) <= "\u024f":
        return token
    return "".join(char for char in normalize(token, "NFKD") if not unicodedata.combining(char))


def _number(token: str) -> str:
    """1,000 = 1000; 3.5 stays."""
    return re.sub(r",(?=\d{3}(?:\D|$))", "", token)


def _content_runs(run: str) -> list[tuple[str, float]]:
    """Words of a run of paired characters that carry a subject, with their weights."""
    if _HANGUL.search(run):
        found: list[tuple[str, float]] = []
        for part in re.findall(r"[가-힣]+|[^가-힣]+", run):
            found += _korean_content(part) if _HANGUL.match(part) else _content_runs(part)
        return found
    if re.search("[\u3040-\u309f]", run):  # Japanese: hiragana carries the grammar
        words = _KANJI_OR_KATAKANA.findall(run) or [run]
    elif re.search("[\u4e00-\u9fff]", run):
        words = [part for part in _CHINESE_FUNCTION.split(run) if part]
    else:
        words = [run]
    return [(word, 1.0) for word in words]


def _korean_content(word: str) -> list[tuple[str, float]]:
    if match := _POLITE.fullmatch(word):
        word = match["noun"]
    if word in KOREAN or word.removesuffix("요") in KOREAN:
        return []
    if _KOREAN_FUNCTION.fullmatch(word) or _KOREAN_REQUEST.search(word):
        return []
    bare = _PARTICLE.sub("", word)
    if bare in KOREAN:
        return []
    if match := _NOUN_VERB.fullmatch(word):
        return [(match[1], 1.0)]
    if _VERB.fullmatch(word):
        return [(word, VERB_WEIGHT)]
    return [(bare if len(bare) >= 2 else word, 1.0)]
