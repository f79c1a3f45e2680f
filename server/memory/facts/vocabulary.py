"""Closed lists that the rules look words up in: languages, verbs of orders, roles, names and what is none."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in text.split())


LANGUAGES = {
    name.lower(): name
    for name in _words(
        """
        Korean English Japanese Chinese Mandarin Cantonese Spanish French German Italian Portuguese Russian Arabic
        Hindi Vietnamese Thai Indonesian Turkish Dutch Polish Swedish Norwegian Danish Finnish Greek Hebrew
        Ukrainian Czech
        """
    )
}
KOREAN_LANGUAGES = {
    "한국어": "Korean", "한국말": "Korean", "한글": "Korean", "우리말": "Korean", "영어": "English",
    "일본어": "Japanese", "일본말": "Japanese", "중국어": "Chinese", "스페인어": "Spanish", "프랑스어": "French",
    "불어": "French", "독일어": "German", "이탈리아어": "Italian", "포르투갈어": "Portuguese", "러시아어": "Russian",
    "아랍어": "Arabic", "베트남어": "Vietnamese", "태국어": "Thai", "인도네시아어": "Indonesian",
}  # fmt: skip

KIN = _words(
    """
    sister brother wife husband spouse partner fiancé fiancée fiance fiancee girlfriend boyfriend mother father mom
    mum dad son daughter grandmother grandfather grandma grandpa uncle aunt cousin niece nephew roommate flatmate
    best_friend friend boss manager supervisor colleague coworker mentor dog cat puppy kitten parrot hamster rabbit
    horse kids kid children parents mother-in-law father-in-law twins baby neighbour neighbor grandson granddaughter
    stepson stepdaughter
    """
)
KOREAN_KIN = _words(
    """
    아내 와이프 남편 딸 아들 동생 여동생 남동생 형 누나 오빠 언니 엄마 어머니 아빠 아버지 부모님 할머니 할아버지
    이모 고모 삼촌 사촌 조카 친구 여자친구 남자친구 여친 남친 룸메이트 상사 팀장님 팀장 사장님 강아지 고양이 아이 애
    첫째 둘째 막내 장인어른 장모님 시어머니 시아버지 약혼자 손자 손녀 남자_친구 여자_친구
    """
)
# Whose they are need not be said.
KOREAN_CLOSE_KIN = frozenset(
    _words(
        """
        아내 와이프 남편 딸 아들 동생 여동생 남동생 누나 오빠 언니 엄마 어머니 아빠 아버지 부모님 여자친구 남자친구
        여친 남친 시어머니 시아버지 장모님 할머니 할아버지
        """
    )
)
# Capitalised like places and firms, and moved between all the same.
NO_PLACES = frozenset(
    _words(
        """
        react vue angular svelte python java javascript typescript windows mac macos linux ubuntu android ios iphone
        chrome firefox safari mysql postgres postgresql sqlite mongodb aws azure gcp vim emacs vscode git svn php
        ruby rails django flask pytorch tensorflow keras gpt chatgpt claude gemini excel word notion slack teams
        discord zoom kubernetes docker spring kotlin swift rust go golang c c++ c# perl r matlab latex markdown html
        css json yaml redis kafka node jquery bootstrap tailwind webpack vite npm yarn chapter part section page
        line step plan option version monday tuesday wednesday thursday friday saturday sunday january february
        march april may june july august september october november december one place another there here this that
        job jobs house home team row file folder tab src lib test i you he she we they it
        """
    )
)

# What users order an assistant to do, always or never.
IMPERATIVES = _words(
    """
    answer reply respond use write give show include add keep be call tell ask explain cite translate start end
    begin format put make avoid assume address speak talk say provide list mention check summarize summarise convert
    prefer send quote skip offer suggest remind do don't apologise apologize repeat refer return output wrap sign
    greet finish follow think try leave omit stop recommend round number consider treat limit highlight link mark
    prefix append state describe define illustrate attach verify admit warn act stick sound spell capitalise
    capitalize double-check drop remove spare lose
    """
)
# Irregular past forms, which have no third person.
PAST_FORMS = _words(
    """
    ate became began born bought broke built came caught chose did drove felt found gave got graduated grew had kept
    knew led left lost made meant met moved paid ran read retired said sat saw sent slept sold spent spoke stood
    swam taught thought told took understood used was went were won wore wrote
    """
)

ROLES = _words(
    """
    nurse doctor physician surgeon dentist pharmacist therapist psychologist teacher professor lecturer tutor
    student engineer developer programmer architect designer artist writer author journalist editor translator
    interpreter lawyer attorney paralegal accountant analyst consultant manager director researcher scientist
    physicist chemist biologist mathematician statistician economist librarian chef cook baker barista waiter
    waitress driver pilot electrician plumber carpenter mechanic farmer gardener photographer musician pianist actor
    actress dancer police_officer firefighter soldier veteran salesperson realtor recruiter administrator secretary
    freelancer entrepreneur retiree parent mother father vegetarian vegan pescatarian beginner native_speaker
    """
)
KOREAN_ROLES = _words(
    """
    개발자 간호사 대학생 대학원생 고등학생 중학생 학생 의사 변호사 교사 선생님 디자이너 주부 공무원 채식주의자
    회사원 직장인 프리랜서 번역가 작가 기자 연구원 교수 약사 요리사 엔지니어 프로그래머 회계사 자영업자 경찰관
    소방관 왼손잡이 비건 당뇨_환자 목수 경찰 가수 배우 화가 강사 군인 목사 농부 건축가 세무사 미용사 사업가 승무원
    수의사 한의사 물리치료사 영양사 사회복지사 바리스타 은행원 취준생 유튜버 택시기사 통역사 간병인 조종사
    """
)

# What follows 'my name is' or 'I am' without being a name: function words, states, origins, beliefs, roles.
NOT_NAMES = _words(
    """
    mud old-fashioned paranoid stupid lazy naive cynical picky biased trouble done legend
    a an the in on at of to by for from with not no nor so too very just also only still now here there back what
    who how why when where which that this these those it its is was are be been being and or but if than then as my
    your his her our their me you him them us i we they she he one two three some any all both none nothing
    something everything always never often already again soon later tomorrow today tonight yesterday maybe perhaps
    almost really quite spelled spelt pronounced written missing wrong misspelled listed shown unknown known private
    secret confidential irrelevant important common rare unusual different same long short easy hard difficult
    hidden empty visible sorry sure fine good great okay ok well bad happy sad tired ready done busy late early lost
    stuck curious confused hungry thirsty sick ill afraid scared glad excited bored angry upset new old young single
    married available free alone worried interested impressed surprised looking trying going getting having doing
    working using thinking wondering writing reading learning studying building planning asking hoping feeling
    coming leaving making asap crazy anytime whenever up out off over down home please korean american english
    british irish scottish welsh french german italian spanish portuguese dutch belgian swiss austrian swedish
    norwegian danish finnish polish czech russian ukrainian greek turkish israeli arab egyptian indian pakistani
    chinese japanese vietnamese thai indonesian filipino malaysian singaporean taiwanese australian canadian mexican
    brazilian argentinian chilean colombian african european asian latino latina hispanic christian catholic
    protestant muslim jewish buddhist hindu atheist agnostic vegan vegetarian male female gay straight human ai
    monday tuesday wednesday thursday friday saturday sunday january february march july august september october
    november december google microsoft apple amazon linux windows python java android vice president senior junior
    chief executive officer manager engineer developer designer director doctor nurse teacher student lawyer team
    lead software data product project head professor everyone nobody anybody anyone capricorn aquarius pisces aries
    taurus gemini cancer virgo libra scorpio sagittarius
    """
)
KOREAN_NOT_NAMES = _words(
    """
    뭐 무엇 누구 뭘 뭐지 비밀 몰라 아니 그거 이거 그것 이것 저것 여기 거기 어디 나 너 저 우리 사람 여자 남자 학생
    바보 천재 최고 꼴찌 혼자 처음 마지막 어른 아이 엄마 아빠 부모 친구 한국인 외국인 미국인 일본인 중국인 직장인
    회사원 개발자 선생님 공무원 주부 백수 의사 간호사 변호사 디자이너 비건 고객 손님 사장 부장 과장 대리 팀장 신입
    초보 아니요 아직 괜찮 진심 정말 진짜 김치 홍보팀 송년회 문과 이과 남편 아내 이름 정상 문제 그냥 반대 찬성 이쪽
    저쪽 장남 장녀 막내 조카 조교 강사 배우 가수 무교 기독교 불교 천주교 고양이 강아지 양자리 지금 오늘 내일 하나 둘
    이번 다음 먼저 나중
    """
)

# After a surname: 'Manager Kim' is no full name.
TITLES = _words(
    """
    대리 과장 부장 차장 팀장 사장 이사 상무 전무 대표 교수 박사 선생 기자 변호 주임 사원 실장 원장 회장 소장 국장 의원
    """
)
# Common enough that 'I am …' introduces somebody.
GIVEN_NAMES = _words(
    """
    민아 민수 민지 민준 민서 민재 민호 민영 민경 민정 지훈 지민 지우 지수 지영 지은 지아 지안 지호 지현 지혜 지윤
    서연 서윤 서준 서현 서진 서우 서아 하준 하은 하윤 하린 도윤 도현 도영 예준 예은 예린 예진 시우 시윤 시현 준서
    준호 준영 준혁 준우 주원 주현 은우 은지 은영 은정 은서 은주 수아 수빈 수진 수민 수연 수현 수정 수영 유진 유나
    유리 유빈 다은 다인 다혜 채원 채은 채린 소연 소희 소영 소민 현우 현준 현수 현지 현정 현주 현아 건우 우진 우빈
    연우 승현 승민 승우 승호 성민 성호 성훈 성진 동현 동욱 재현 재민 재훈 재원 태현 태민 태호 영희 영수 영호 영미
    영진 철수 순희 정훈 정은 정민 정우 정희 미영 미정 미경 미나 나연 나영 나은 혜진 혜원 혜린 경민 경희 상훈 상현
    진우 진호 진영 진아 아름 한솔 슬기 가영 가은 윤아 윤서 윤지 윤호 세영 세진 선영 선우 선희 희진 희수 인영 기현
    규현 찬호 찬우 형준 효진 효주 길동
    """
)
# Of words that begin like a surname but end as jobs, groups, places, numbers and dishes do.
NOT_LAST_SYLLABLES = _words(
    """
    자 원 생 사 인 님 관 가 부 꾼 장 공 팀 과 반 러 터 트 스 광 팬 파 형 중 음 림 함 것 쪽 편 기 어 적 상 면 때 말
    일 번 개 직 남 녀 당 대 살 년 버 구 역 증 동 북 죽 밥 국 지
    """
)

# Too common to make a memory bear on a question.
STOP_WORDS = _words(
    """
    a about all also am an and any are as at be been but by called can can't could day did do does doesn't doing
    don't explain for from get give good got had has have he help her here him his how i i'm i've if in is it it's
    its just know let like likes make may me might mine more most must my name names need needs new no nor not of
    off on one only or our out over own please remember said same say she should show so some such tell than that
    that's the their them then there there's these they thing things this those time to too up use used user user's
    very want wants was way we were what what's when where which who whom why will with would write you your
    """
)
KOREAN_STOP_WORDS = _words(
    """
    그것 이것 저것 나는 저는 내가 제가 저를 나를 나의 저의 나도 저도 너는 네가 우리는 그는 이건 그건 이걸 그걸
    시 월 일 분 년 개 명 번 원 회 등 중 내일 어제 써줘 때문 부터 까지 에서 으로 에게 한테 언제지 매일 매주 항상
    거 것 그 기억 나 내 너 누구 대한 대해 더 돼 되나요 됩니다 때 말해줘 못 무슨 무엇 뭐 뭐야 뭐예요 뭔가요 사람 사용
    사용자 생각 설명 설명해줘 수 싫어해요 안 알려 알려주세요 알려줘 어디 어떤 어떻 어떻게 언제 없어 없어요 예요 오늘
    왜 우리 이 이름 이에요 인가요 입니다 있나요 있는 있어 있어요 잘 저 정말 제 좀 좋아해요 좋을까 좋을까요 주세요 줘
    지금 진짜 질문 추천 추천해 추천해줘 하고 하는 하면 한 할 해요 해주세요 해줘
    """
)
