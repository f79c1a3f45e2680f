"""What Korean sentences say of the speaker's life: who belongs to them, what they work on, what is to come, what has
changed ("부산에서 서울로 이사했어요").

A change gives what was and what is now; an event needs a day to come and is over after it. Predicates are stored in
one polite form. Knows nothing of sentences or storage.
"""

from __future__ import annotations

import re
from dataclasses import replace

from server.memory.facts.findings import Finding
from server.memory.facts.korean_self import PREDICATES, SUBJECT, is_about_speaker, polite_form
from server.memory.facts.vocabulary import KOREAN_CLOSE_KIN, KOREAN_KIN, KOREAN_ROLES
from server.memory.reading import dates
from server.memory.reading.own_words import Span
from server.types import MemoryKind

_END = r"(?:어요?|었어요?|습니다|었습니다|다|음|고|는데요?|지요?|죠|네요)"
_DID = rf"(?:했|하였|왔|갔|옮겼){_END}"
_LIVED = rf"살았{_END}"
_WENT = rf"(?:다녔|일했|근무했){_END}"
_BE = r"(?:있(?:어요?|습니다|다|음|는데요?|고)|있음)"
_ING = rf"고\s*{_BE}"
_IS = r"(?:이?세요|이?십니다|이?셔요?|이에요|예요|에요|입니다|이야|야|임|인데요?|이고)"
_PLACE = r"(?P<{}>[가-힣A-Za-z][가-힣A-Za-z0-9&. -]{{0,20}}?)"
_OLD, _NEW = _PLACE.format("old"), _PLACE.format("new")
_THING = r"(?:파일|폴더|문서|사진|코드|글|자리|탭|창|페이지|주제|줄|칸|부서|데이터|서버|화제|팀|학교|책상|가구|짐)"
_MOVED = re.compile(
    rf"(?:{_OLD}에서\s+(?:살다가\s+)?)?{_NEW}(?:으로|로)\s*(?:이사를?\s*{_DID}|집을\s*옮겼{_END})$"
    rf"|이사\s*{_DID}\s*[:：,]\s*"
    rf"(?:(?P<o2>\S+)에서\s+)(?P<n2>\S+?)(?:으로|로)$"
)
_CHANGED = re.compile(
    rf"(?:회사|직장)(?:를|을)\s+(?P<o3>\S+)에서\s+(?P<n3>\S+?)(?:으로|로)\s*옮겼{_END}$"
    rf"|(?:{_OLD}에서\s+(?:다니다가?\s+)?)?{_NEW}(?:으로|로)\s*(?:이직을?\s*{_DID}|(?:회사|직장)를?을?\s*옮겼{_END})$"
    rf"|이직\s*{_DID}\s*[:：,]\s*(?:(?P<o2>\S+)에서\s+)(?P<n2>\S+?)(?:으로|로)$"
)
_BEFORE = re.compile(
    rf"(?:(?P<then>예전|전|이전|옛날|과거)에는?\s+)?(?P<x>\S.*?)(?P<p>에서|에)\s*(?:{_LIVED}|(?P<work>{_WENT}))$"
)
_SINCE = re.compile(r"(?:부터|이후로?)\s*$")

_HIS = r"(?:우리\s?집|저희\s?집|우리|저희|제|내|저의|나의)"
_KIN = "|".join(sorted(KOREAN_KIN, key=len, reverse=True))
_MY_KIN = re.compile(
    rf"(?:(?P<mine>{_HIS})\s*)?(?P<kin>(?:큰|작은|첫째|둘째|막내|쌍둥이)?\s?(?:{_KIN}))"
    rf"(?:\s(?P<name>[가-힣]{{2,4}}))?(?P<p>은|는|이|가|도)\s*(?P<rest>\S.*)$"
)
_KIN_NAME = re.compile(
    rf"(?:(?P<mine>{_HIS})\s*)?(?P<rest>(?P<kin>{_KIN})의?\s*(?:이름|생일|나이|직업)[은는이가]\s*(?!뭐|무엇|누구|언제"
    rf"|몇)\S.{{0,30}}?{_IS})$"
)
_KIN_ROLE = re.compile(
    rf"(?P<x>(?:[가-힣A-Za-z]+\s){{0,2}}[가-힣]*(?:{'|'.join(KOREAN_ROLES)}|(?:초등학교|중학교|고등학교|대학교"
    rf"|대학)\s?\d학년)){_IS}$"
)
_BREED = re.compile(rf"(?P<x>(?!바보|천재|최고|문제|가족|정말|진짜)[가-힣]{{2,8}}?){_IS}$")
_KIN_AGE = re.compile(rf"(?P<x>(?:올해\s*)?(?:\d{{1,3}}|[가-힣]{{1,3}})\s?(?:살|세|개월)){_IS}$")
_COUNT = r"(?:한|두|세|네|다섯|하나|둘|셋|넷|\d+)\s?(?:명|마리|분)?"
_HAVE_KIN = re.compile(
    rf"(?P<x>(?:쌍둥이\s|어린\s|다\s?큰\s|외동\s?)?(?:여동생|남동생|동생|형|누나|오빠|언니|딸|아들|아이|자녀"
    rf"|쌍둥이|조카|남편|아내|여자\s?친구"
    rf"|남자\s?친구|손주|손자|손녀)"
    rf"(?:이|가)?(?:\s*{_COUNT}(?:이|가)?)?)\s*{_BE}$"
)
_PETS = re.compile(
    rf"(?:집에서\s+)?(?P<x>(?:[가-힣]+\s)?(?:강아지|고양이|개|햄스터|토끼|앵무새|거북이|물고기|금붕어|고슴도치"
    rf"|새|푸들"
    rf"|말티즈))(?:를|을)?(?:\s*(?P<n>{_COUNT})(?:를|을)?)?"
    rf"\s*(?:키우{_ING}|키우는데요?|키워요?|키웁니다|기르{_ING}|길러요?)$"
)
_MARRIED = re.compile(rf"(?P<x>결혼|약혼|이혼|재혼)을?\s*했{_END}$")

_PROJECTS = tuple(
    (re.compile(rf"(?P<x>(?=\S).*?{needs})(?P<p>을|를)?\s*(?:{verbs})$"), form)
    for needs, verbs, form in (
        (r"(?:앱|어플|게임|서비스|웹사이트|웹|사이트|챗봇|봇|로봇|영화|음악|앨범|프로그램|엔진|플랫폼|시스템|모델|라이브러리|영상|브랜드|가구|드론|키보드|컴파일러|언어)",
         rf"만들{_ING}|만드는\s*중{_IS}", "만들고 있어요"),
        (r"(?<!함수)(?<!코드)", rf"개발하?{_ING}|개발\s*중{_IS}", "개발하고 있어요"),
        (r"(?:책|소설|논문|시나리오|블로그|에세이|동화|대본|수필|웹소설|자서전|시집)",
         rf"쓰{_ING}|쓰는\s*중{_IS}|집필하?\s*중{_IS}", "쓰고 있어요"),
        (r"(?<!많이)(?<!것)(?<!걸)(?<!많은)", rf"배우{_ING}|배우는\s*중{_IS}", "배우고 있어요"),
        (r"(?:시험|면접|자격증|마라톤|대회|유학|취업|이직|창업|결혼|결혼식|여행|이사|공연|전시|전시회|토익|토플|수능|임용|공시|오디션|개업|이민|대학원|입시|고시|오픽|편입)",
         rf"준비\s*중{_IS}|준비(?:를\s*)?하{_ING}|공부(?:를\s*)?하{_ING}|공부\s*중{_IS}", "준비하고 있어요"),
        (r"(?:카페|가게|식당|채널|쇼핑몰|회사|블로그|학원|매장|스토어|농장|펜션|미용실|공방|서점|병원|약국)",
         rf"운영하{_ING}|운영\s*중{_IS}|운영해요?|운영합니다", "운영하고 있어요"),
        (r"(?:에\s?대해|에\s?관해|을|를)", rf"연구하{_ING}|연구\s*중{_IS}", "연구하고 있어요"),
    )
)  # fmt: skip
_JUST = re.compile(r"(?:^|\s)(?:이번에|최근에?|얼마\s?전에|드디어|막|방금|며칠\s?전에|저희는?|우리는?)(?=\s)")
_DONE_FOR = re.compile(
    r"(?P<x>\S.*?\S\s지(?:는|가)?\s(?:벌써\s|이제\s)?(?:\d+|[한두세네몇]|다섯|십)\s?(?:년|개월|달)\S*?)\s*"
    r"(?:됐|되었|넘었|째)(?:어요?|습니다|다|음|이에요|는데요?)?$"
)
_LATELY = re.compile(r"(?:(?:요즘|최근에?|지금|현재|올해|혼자|취미로|회사에서|친구들?이랑)(?:은|는|도)?\s+)+")
_NO_PROJECT = re.compile(
    r"(?:^|\s)(?:이|그|저|이런|그런|함수|코드"
    r"|이메일|메일|편지|보고서|숙제|과제|답|표|문장|클래스|파일|쿼리|목록|리스트)(?:을|를|\s|$)"
)

_OCCASION = (
    r"(?:면접|시험|회의|미팅|약속|예약|결혼식|여행|발표|수술|출장|비행기|공연|콘서트|대회|파티|모임|회식|검진"
    r"|진료|마감|이사|졸업식|입사|휴가|데이트|상견례"
    r"|생일|졸업|개강|입학|세미나|학회|촬영|오디션|마라톤|경기|소개팅|돌잔치|제사)"
)
_EVENT = re.compile(
    rf"(?P<x>.*?){_OCCASION}(?:(?:이|가|을|를|은|는)?\s*(?:{_BE}|잡혔{_END}|예정{_IS}|{_IS}|보러\s*가요?|봐요?"
    rf"|봅니다|받으러\s*가요?|하러\s*가요?|받아요?|받습니다|타요?|가요?|갑니다|떠나요?|해요?|합니다|갈\s*거{_IS}"
    rf"|할\s*거{_IS}|갈\s*예정{_IS}|할\s*예정{_IS}))$"
    rf"|(?P<y>.*?)(?:결혼|이사|졸업|출국|입대|퇴사|귀국|입사|이민|개업|출산)(?:을\s*)?(?:해요?|합니다|가요?"
    rf"|갑니다|할\s*거{_IS}|갈\s*거{_IS}|(?:할|갈)?\s*예정{_IS})$"
)
_RECURS = re.compile(r"매주|매일|매달|매년|마다|항상|가끔|보통")
_SKILL = re.compile(
    r"(?P<x>\S.*?)(?P<p>을|를)?\s*(?:(?P<can>할\s*줄\s*알(?:아요?|고|지만|아|는데요?)|할\s*줄\s*압니다)"
    r"|(?P<play>(?<=피아노를)\s*쳐요?|(?<=기타를)\s*쳐요?|연주해요?|연주합니다))$"
)
_GROUND = re.compile(r"(?:(?:저는|나는|난|전|제가|내가|저도|나도|저|나|우리는|우리)\s+)")


def find_life(span: Span, own: bool) -> tuple[Finding, ...]:
    """One statement; `own`: the speaker is its subject although it is not named again."""
    subject = SUBJECT.match(span.masked) or _GROUND.match(span.masked)
    body = span.cut(subject.end()) if subject else span
    mine = own or subject is not None
    return (
        _change(span, body, mine)
        or _was(span, body, mine)
        or _relation(span, body, mine)
        or _event(span, body, mine)
        or _project(span, body, mine)
    )


def _others(text: str, mine: bool) -> bool:
    """Whether somebody else is the subject of `text`, or it points at the talk."""
    found = re.match(r"(?P<x>.*)(?P<p>)$", f"{text.strip()} 것")
    return found is None or not is_about_speaker(f"{text.strip()} 것", found, mine)


def _change(span: Span, body: Span, mine: bool) -> tuple[Finding, ...]:
    day, bare = dates.strip_date(body.masked, body.at)
    for pattern, then, now in ((_MOVED, "에 살았어요", "에 살아요"), (_CHANGED, "에 다녔어요", "에 다녀요")):
        found = pattern.match(_JUST.sub(" ", bare).strip())
        if found is None:
            continue
        groups = found.groupdict()
        old, new = (groups[a] or groups[b] or groups.get(c) for a, b, c in (("old", "o2", "o3"), ("new", "n2", "n3")))
        if new is None:
            continue
        if re.search(_THING, bare) or _others(f"{old or ''} {new}", mine):
            return ()
        when = day.start if day and day.start <= body.at else body.at
        stop = span.start + len(span.source)
        known = Finding(MemoryKind.IDENTITY, f"{new.strip()}{now}.", span.start, stop, valid_from=when)
        if not old:
            return (known,)
        return Finding(MemoryKind.IDENTITY, f"{old.strip()}{then}.", span.start, stop, valid_to=when), known
    return ()


def _was(span: Span, body: Span, mine: bool) -> tuple[Finding, ...]:
    """'예전에 부산에 살았어요', and '2019년부터 서울에 살아요'."""
    day, bare = dates.strip_date(body.masked, body.at)
    stop = span.start + len(span.source)
    found = _BEFORE.match(bare.strip())
    if found:
        ended = found["then"] or (day and body.masked[day.text_end :].startswith("까지"))
        if _others(found["x"], mine) or not (mine or ended) or len(found["x"].split()) > 3:
            return ()
        over = day.start if day and day.start <= body.at else body.at
        text = f"{found['x']}에 {'다녔어요' if found['work'] else '살았어요'}."
        return (Finding(MemoryKind.IDENTITY, text, span.start, stop, valid_to=over),)
    if day is None or day.start > body.at or not re.match(r"부터|이후", body.masked[day.text_end :].lstrip()):
        return ()
    for kind, pattern, form in PREDICATES:
        now = pattern.match(bare.strip())
        if now and form in ("살아요", "일해요", "다녀요") and not _others(now["x"], mine):
            return (Finding(kind, f"{now['x']}{now['p']} {form}.", span.start, stop, valid_from=day.start),)
    return ()


def _relation(span: Span, body: Span, mine: bool) -> tuple[Finding, ...]:
    stop = span.start + len(span.source)
    named = _KIN_NAME.match(span.masked)
    if named and (named["mine"] or named["kin"] in KOREAN_CLOSE_KIN):
        text = f"사용자의 {span.source[named.start('rest') : named.end('rest')]}."
        return (Finding(MemoryKind.RELATION, text, span.start, stop, subject=named["kin"]),)
    kin = _MY_KIN.match(span.masked)
    if kin and (kin["mine"] or kin["kin"].strip() in KOREAN_CLOSE_KIN):
        told = _of_kin(span, kin)
        if told:
            who = f"{kin['kin']} {kin['name']}" if kin["name"] else kin["kin"]
            mark = "은" if (ord(who[-1]) - ord("가")) % 28 else "는"
            text = f"사용자의 {who}{mark} {told}"
            named_so = _called(kin["name"]) or kin["kin"].strip()
            return (Finding(MemoryKind.RELATION, text, span.start, stop, subject=named_so),)
    return _household(span, body, mine)


def _called(name: str | None) -> str:
    """'지훈이' is 지훈."""
    short = name and len(name) > 2 and name.endswith("이") and (ord(name[-2]) - ord("가")) % 28
    return name[:-1] if name and short else name or ""


def _household(span: Span, body: Span, mine: bool) -> tuple[Finding, ...]:
    day, bare = dates.strip_date(body.masked, body.at)
    bare, stop = bare.strip(), span.start + len(span.source)
    have, pets, married = _HAVE_KIN.match(bare), _PETS.match(bare), _MARRIED.match(bare)
    if have:
        text = f"{have['x']} 있어요."
    elif pets:
        words = f"{pets['x']} {pets['n']}" if pets["n"] else pets["x"]
        text = f"{words}{_object(words)} 키워요."
    elif married:
        text = f"{married['x']}했어요."
    else:
        return ()
    began = day.start if day and day.start <= body.at else None
    return (Finding(MemoryKind.RELATION, text, span.start, stop, valid_from=began),)


def _of_kin(span: Span, kin: re.Match[str]) -> str:
    """What is said of one's kin, in the polite form; ''."""
    rest = span.cut(kin.start("rest"))
    if rest.masked.endswith("사세요"):  # said of elders
        rest = replace(rest, masked=f"{rest.masked[:-3]}살아요")
    for _, pattern, form in PREDICATES:
        found = pattern.match(rest.masked)
        if found and is_about_speaker(rest.masked, found, True):
            return polite_form(rest, found, form)
    pet = kin["kin"].strip() in ("강아지", "고양이") and _BREED.match(rest.masked)
    role = pet or _KIN_ROLE.match(rest.masked) or _KIN_AGE.match(rest.masked)
    return f"{role['x']}{'이에요' if (ord(role['x'][-1]) - ord('가')) % 28 else '예요'}." if role else ""


def _event(span: Span, body: Span, mine: bool) -> tuple[Finding, ...]:
    """Of a day to come, which the text tells in numbers; today is not worth it."""
    if _RECURS.search(body.masked) or len(body.masked) > 80:
        return ()
    found = _EVENT.match(body.masked)
    day = dates.find_future_date(body.masked, body.at) if found else None
    if found is None or day is None or day.start <= body.at:
        return ()
    before = dates.strip_date(found["x"] or found["y"] or "", body.at)[1]
    if re.search(r"\S(?:은|는|이|가|도|께서)\s", f"{before} ") or re.search(r"(?:^|\s)(?:이|그|저)\s", before):
        return ()
    text = f"{' '.join(body.source.split()).rstrip('.!~ ')} ({day.iso})."
    return (Finding(MemoryKind.EVENT, text, span.start, span.start + len(span.source), valid_to=day.end),)


def _project(span: Span, body: Span, mine: bool) -> tuple[Finding, ...]:
    lately = _LATELY.match(body.masked)
    part = body.cut(lately.end()) if lately else body
    if len(part.masked) > 80 or _NO_PROJECT.search(part.masked):
        return ()
    stop = span.start + len(span.source)
    for pattern, form in _PROJECTS:
        found = pattern.match(part.masked)
        if found and not _others(found["x"], mine or lately is not None):
            words = part.source[: found.end("x")].strip()
            if not words:
                continue
            mark = "" if words.endswith(("을", "를", "대해", "관해")) else _object(words)
            return (Finding(MemoryKind.PROJECT, f"{words}{mark} {form}.", span.start, stop),)
    done = _DONE_FOR.match(part.masked)
    if done and not _others(done["x"], mine):
        return (Finding(MemoryKind.IDENTITY, f"{part.source[: done.end('x')]} 됐어요.", span.start, stop),)
    skill = _SKILL.match(part.masked) if mine else None
    if skill and skill["can"] and not _others(skill["x"], mine):
        words = part.source[: skill.end("x")].strip()
        return (Finding(MemoryKind.IDENTITY, f"{words}{_object(words)} 할 줄 알아요.", span.start, stop),)
    return ()


def _object(words: str) -> str:
    """The object mark that the last syllable asks for; '를' after what is no Hangul."""
    last = words[-1]
    return "을" if "가" <= last <= "힣" and (ord(last) - ord("가")) % 28 else "를"
