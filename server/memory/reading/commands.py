"""What a user says to the memory itself, in words: "what do you know about me?", "forget that I like tea".

English and Korean. A command is the whole message, said in the user's own words; a sentence inside a longer
message, a quotation or a question about forgetting is none. Knows nothing of storage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from server.memory.reading.own_words import MASK, clean, mask

MAX_CHARS = 300  # a longer message is no command
_END = " \t\r\n.!?。！？~…^ㅎㅋㅠㅜ"


@dataclass(frozen=True, slots=True)
class ListCommand:
    """The user asks what is kept about them."""


@dataclass(frozen=True, slots=True)
class ForgetCommand:
    """The user asks to forget `about`, in their own words: 'I like tea', '내 생일'. `everything`: all there is.
    `redacted` is the command without those words."""

    about: str
    everything: bool = False
    redacted: str = field(default="", compare=False)


_POLITE = (
    r"(?:(?:hi|hello|hey|ok|okay|so|well|actually|please|pls|sorry|alright|now)\b[\s,.!]*|"
    r"(?:can|could|would|will) you (?:please |kindly |also )?|i(?:'d| would) like you to |i (?:want|need) you to )*"
)
_TAIL = (
    r"(?:[\s,]+(?:please|pls|thanks|thank you|again|now|so far|right now|already|exactly|anymore|any more|ok"
    r"|okay))*"
)
_KNOW = r"(?:know|remember|recall|have (?:saved|stored|remembered|learned|learnt|kept|noted))"
_LIST = re.compile(
    rf"{_POLITE}(?:"
    rf"(?:what|which things|what (?:all|else|things|facts|information|info)) (?:do|did|have) you (?:currently "
    rf"|actually |already )?"
    rf"(?:know|remember|recall|saved?|stored?|learn(?:ed|t)?|kept|keep|noted?|have) (?:about|on|of) (?:me|myself)"
    rf"|(?:do|did) you (?:know|remember|recall) anything about me"
    rf"|(?:tell|show) me (?:what|everything|all|all the things|the things)(?: that)? you(?:'ve| have)? "
    rf"(?:{_KNOW}|saved|stored|learned|learnt|kept|noted) (?:about|on) me"
    rf"|(?:show|list|tell)(?: me)? (?:all )?(?:of )?(?:my|your) memor(?:y|ies)(?: (?:about|of) me)?"
    rf"|what(?:'s| is) in (?:your|my) memory(?: (?:about|of) me)?|what memories do you have (?:about|of|on) me"
    rf"){_TAIL}",
    re.IGNORECASE,
)
_BACK_REFERENCE = re.compile(
    r"(?:it|that|this|those|these|them|everything i (?:said|told)|what i (?:just )?(?:said|asked|told|wrote)"
    r"|i (?:ever |just |even )?(?:asked|said (?:that|this|it|anything|so)|mentioned (?:that|this|it)|exist))$",
    re.IGNORECASE,
)
_I_SAID = re.compile(r"(?:(?:that )?i (?:said|told you|mentioned)(?: that)? )(?=(?:i|my|i'm|i've)\b)", re.IGNORECASE)
_FORGET_ALL = re.compile(
    rf"{_POLITE}(?:forget|delete|erase|clear|remove|wipe)(?: out)? (?:"
    r"everything(?: that)?(?: you(?:'ve| have)?(?: ever)? (?:know|knew|remember|saved|stored|learned|learnt|kept))?"
    r"(?: about me)?|all (?:of )?(?:my|your|the) memor(?:y|ies)(?: (?:about|of) me)?|(?:my|your) (?:entire "
    r"|whole )?memor(?:y|ies)"
    rf"(?: (?:about|of) me)?|all you know about me|me(?: completely)?){_TAIL}",
    re.IGNORECASE,
)
_FORGET = re.compile(
    rf"{_POLITE}(?:"
    r"(?:forget|don't remember|do not remember|stop remembering|no longer remember)"
    r"(?: the fact)? that (?P<that>(?:i|i'm|i've|my|me|we|our)\b.+?)"
    r"|(?:forget|stop remembering)(?: about)? (?P<plain>(?:my|i|i'm|i've)\b.+?)"
    r"|forget (?:what|everything|all|anything)(?: that)? (?:i(?:'ve| have)? (?:said|told you|mentioned)|you "
    r"(?:know|remember)) about (?P<told>my\b.+?)"
    r"|(?:delete|remove|erase|forget|clear) (?:the|that|your|any) (?:memory|memories|fact|note)s? "
    r"(?:that|about|of|where|saying(?: that)?) (?P<memory>.+?)"
    rf"){_TAIL}",
    re.IGNORECASE,
)

_ME = r"(?:나|저|내|제)"
_OPEN = (
    r"(?:(?:안녕(?:하세요)?|저기요?|그럼|그런데|근데|혹시|이제|일단|너|넌|네가|니가|당신이?|좀|미안한데"
    r"|죄송하지만|그리고)[\s,]+)*"
)
_ABOUT_ME = rf"{_ME}(?:에\s*(?:대해서?|관해서?|대한|관한))"
_KOREAN_TELL_ME = (
    r"(?:알려|말해|보여|얘기해|이야기해|설명해|정리해)\s*(?:줘요?|주세요|줄래요?|주실래요|봐요?|줄\s*수\s*있"
    r"(?:어요?|나요))?"
)
_KOREAN_LIST = re.compile(
    rf"{_OPEN}(?:"
    rf"{_ABOUT_ME}\s*(?:뭘|무엇을|뭐를|뭐|무얼|어떤\s*걸|어떤\s*것을|얼마나)\s*(?:알아요?|아니|아나요|아세요"
    rf"|알고\s*있(?:어요?|니|나요|습니까)"
    r"|기억해요?|기억하(?:니|나요|세요|고\s*있(?:어요?|니|나요|습니까))|저장했(?:어요?|니|나요))"
    rf"|{_ABOUT_ME}\s*(?:네가\s*|너가\s*)?(?:알고\s*있는|아는|기억하고\s*있는|기억하는|저장한|저장된|기억)\s*"
    rf"(?:거|것|게|걸|것을|것들|내용|정보|사실|점)?\s*(?:들|을|를|이|은|는)?\s*(?:(?:모두|전부|다|좀|모든)\s*)*"
    rf"(?:{_KOREAN_TELL_ME}|뭐(?:야|예요|에요|니|가\s*있(?:어요?|나요|니))|무엇(?:인가요|이야|입니까)|있(?:어요?|나요"
    rf"|니)|말해)"
    rf"|(?:내|제|나의|저의)\s*(?:기억|메모리)(?:들|을|를)?\s*(?:(?:모두|전부|다|좀)\s*)*(?:{_KOREAN_TELL_ME})"
    rf"|{_ME}를?\s*(?:얼마나\s*)?(?:뭐로|어떻게)\s*(?:알고|기억하고)\s*있(?:어요?|나요|니)"
    r")"
)
_KOREAN_FORGET_VERB = (
    r"(?:(?:이제\s*|그만\s*|좀\s*|다\s*|완전히\s*)*(?:"
    r"(?:잊|까먹|지우|지워|잊어\s*버려|삭제)(?:어|고|해)?\s*(?:버려|버리)?\s*(?:줘요?|주세요|주라|줄래요?"
    r"|주실래요|주십시오|라|세요|요|버려줘요?)?"
    r"|기억에서\s*(?:지워|삭제해|빼)\s*(?:줘요?|주세요|버려|줄래요?)?"
    r"|(?:더\s*이상\s*)?기억\s*(?:하지|안\s*해도)\s*(?:마요?|말아?\s*(?:줘요?|주세요)|마세요|돼요?|됩니다)))"
)
_KOREAN_FORGET = re.compile(
    rf"{_OPEN}(?P<about>(?:내|제|나의|저의|내가|제가|나는|저는|나|저|난|전)\s?\S.*?)"
    rf"(?:(?<=[다라])(?:는|고)?\s*(?:한\s*)?(?P<that>거|것|걸|건|거는|것은|것을|거를|사실|사실을|점|점을|말"
    rf"|기억|기억을)|(?P<topic>에\s*(?:대한|관한)\s*(?:기억|거|것|걸|정보|내용|메모리)(?:을|를|은|는)?|에\s*"
    rf"(?:대해서?|관해서?))|(?P<mark>[을를은는]))?"
    rf"\s*{_KOREAN_FORGET_VERB}"
)
_KOREAN_FORGET_ALL = re.compile(
    rf"{_OPEN}(?:(?:{_ABOUT_ME}\s*)?(?:(?:내|제|나의|저의|네|너의)\s*)?(?:(?:모든|전체)\s*)?(?:기억|메모리|거"
    rf"|것|아는\s*거|아는\s*것|기억하는\s*거|기억하는\s*것|정보|걸)(?:을|를|은|는)?"
    rf"\s*(?:다|전부|모두|싹|완전히|모조리)|{_ABOUT_ME}\s*(?:모든|전체)\s*(?:기억|메모리|것|걸|정보)(?:을|를)?"
    rf"|{_ABOUT_ME}\s*(?:다|전부|모두|싹)|(?:내|제|나의|저의)\s*모든\s*(?:기억|메모리)(?:을|를)?)"
    rf"\s*{_KOREAN_FORGET_VERB}"
)
_KOREAN_BACK_REFERENCE = re.compile(
    r"(?:내가|제가|나는|저는)\s*(?:방금\s*|아까\s*|지금\s*|조금 전에\s*|전에\s*)*(?:한|했던|말한|말했던|얘기한"
    r"|물어본|부탁한|쓴)(?:\s*(?:말|거|것|질문|얘기|부탁))?$"
    r"|(?:내|제)\s*(?:말|질문|부탁|얘기)$"
)


def parse_command(text: str) -> ListCommand | ForgetCommand | None:
    """The command that the message is, if it is one."""
    if len(text) > 10 * MAX_CHARS:  # not worth cleaning
        return None
    whole = clean(text).strip()
    if not whole or len(whole) > MAX_CHARS:
        return None
    plain = " ".join(whole.rstrip(_END).split())
    masked = mask(plain)
    if MASK in masked:
        return None
    if _LIST.fullmatch(masked) or _KOREAN_LIST.fullmatch(masked):
        return ListCommand()
    if _FORGET_ALL.fullmatch(masked) or _KOREAN_FORGET_ALL.fullmatch(masked):
        return ForgetCommand("", everything=True)
    return _forget(plain, masked)


def _forget(plain: str, masked: str) -> ForgetCommand | None:
    """`masked` is `plain` masked: the same length."""
    found = _FORGET.fullmatch(masked)
    if found:
        group = found.lastgroup or "that"
        start, end = found.span(group)
        i_said = _I_SAID.match(masked, start)
        start = i_said.end() if i_said else start
        about = plain[start:end].strip(" ,.")
        if not about or _BACK_REFERENCE.match(about):
            return None
        return ForgetCommand(about, redacted=f"{plain[:start]}…{plain[end:]}")
    found = _KOREAN_FORGET.fullmatch(masked)
    if found is None:
        return None
    about = plain[found.start("about") : found.end("about")].strip(" ,.")
    if _KOREAN_BACK_REFERENCE.match(about) or len(about) < 3:
        return None
    return ForgetCommand(about, redacted=f"{plain[: found.start('about')]}…{plain[found.end('about') :]}")
