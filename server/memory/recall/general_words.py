"""Words that so many questions have that sharing one says little. Stop words are elsewhere: these say something."""

from __future__ import annotations

from typing import Final

_ENGLISH = """
advice answer ask bad before best better big book buy call change check city come company compare cost country day
deadline design different easy end example explain family fast feel find first fix food friend game good great group
hard health help high home hour house idea important keep kind language last leave life line list little live long
look make man message money month morning move much music name new next night note number office old open order part
people person place plan play point prepare price problem project question quick read recipe recommend report right
run say school second send set short show simple small start step stop story study suggest summary system take talk
team test thing think time title today tomorrow town translate travel try turn type update visit wait walk watch
week weekend word work world write wrong year young
"""
_KOREAN = """
가족 가격 계획 공부 국가 나라 내용 내일 노래 뉴스 단어 대회 도시 동네 문제 문구 문장 방법 번역 보고서 사람
사용 사용자 사진 생각 생일 선물 설명 소개 시간 시작 아이 아침 양식 언어 여행 영화 예시 오늘 요리 요약 운동
음식 음악 이메일 이야기 이유 작성 저녁 점심 정리 제목 종류 주말 준비 차이 책 추천 친구 코드 프로젝트 하루
학교 회사 좋아 싫어 사랑 선호 알려 써 짜 만들어 보여 찾아 가르쳐
"""

ENGLISH: Final = frozenset(_ENGLISH.split())
KOREAN: Final = frozenset(_KOREAN.split())
