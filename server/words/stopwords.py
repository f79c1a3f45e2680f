"""Words that carry no subject: data for `words`."""

from __future__ import annotations

from typing import Final

_ENGLISH = """
a about all also am an and any anyone anything are as ask at be because been but by can cannot could did
do does don done else for from get give go got had has have he help her here hers him his how however i if
in into is it its just kindly know let like ll long many may me mean might mine more most much must my
need no not of off ok okay on one only onto or other our ours out please s say shall she should show since
so some something still such t tell than thank thanks that the their theirs them then there these they
this those to too up us use ve very want was way we well were what when where whether which while who whom
whose why will with would yes yet you your yours
"""

_KOREAN = """
가장 거 거기 것 것은 것이 게 경우 관련 그 그거 그건 그것 그게 그래서 그러면 그런 그런데 그때 그럼 그리고 근데 나
나는 난 내 내가 너 누가 누구 누군가 대한 대해 대해서 되 되나 되는 되는지 되면 된 될 때 때는 또 또는 며칠
몇 무슨 무엇 무엇이 무엇인가 무엇인가요 무엇인지 뭐 뭐가 뭐야 뭐예요 뭔가 뭔가요 및 방법 수 수가 수는 싶
싶습니다 싶어 싶어요 싶은 싶은데 걸려 걸려요 걸리나요 걸리는지 걸리죠 걸릴까요 걸립니까
아 아니 안 알고 어느 어디 어디서 어디에 어디에서 어떤 어떻게 언제 언제까지
언제부터 얼마 얼마나 얼마야 얼마예요 얼마인가요 왜 우리 위해 이 이거 이건 이것 이게 이런 이름 인가 있 있나
있는 있는지 있습니까 있어 있어요 있을까 있을까요 저 저기 저는 전 제 제가 좀 주 중 줘 하 하고 하는 하는지
하면 한 할 할까 해 해도 해서 혹시
"""

ENGLISH: Final = frozenset(_ENGLISH.split())
KOREAN: Final = frozenset(_KOREAN.split())
