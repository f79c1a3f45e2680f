"""HTML as it is found, mail as it is sent: what is shown is read, what is not read is said."""

from __future__ import annotations

import datetime
import struct
from email.message import EmailMessage

import pytest

from server.errors import KnowledgeError
from server.retrieval.loaders import load
from server.retrieval.loaders.compressed_rtf import unpacked_rtf
from server.retrieval.loaders.document import BlockKind, Document
from tests.retrieval.loaders.ole import compound


def texts(document: Document) -> list[str]:
    return [document.text[block.start : block.end] for block in document.blocks]


def headings(document: Document) -> list[tuple[str, ...]]:
    return [block.heading for block in document.blocks]


def page(source: str) -> list[str]:
    return texts(load("a.html", source.encode()))


# ── HTML ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "encoding"),
    [
        ('<?xml version="1.0" encoding="euc-kr"?><html><body>배송은 이틀</body></html>', "cp949"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=ks_c_5601-1987"><p>똠방각하 안내', "cp949"),
        ('<meta charset="gb2312"><p>發貨時間為兩天', "gb18030"),
        ('<meta charset="shift_jis"><p>配送は①日です', "cp932"),
        ('<meta charset="iso-2022-jp"><p>営業時間は九時から', "iso-2022-jp"),
        ('<meta charset="iso-8859-1"><p>“Preis”: 5 €', "cp1252"),
        ('<meta charset="iso-8859-1"><p>반품은 열흘 안에 하십시오', "cp949"),  # wrongly declared
        ('<meta charset="windows-1251"><p>Доставка за два дня', "utf-8"),  # wrongly declared
        ('<meta charset="utf-8"><p>Öffnungszeit: früh', "utf-16"),
    ],
)
def test_a_page_is_read_in_the_encoding_it_is_in(source: str, encoding: str) -> None:
    words = source.rpartition("<p>")[2].replace("</body></html>", "").rpartition("<body>")[2]
    assert texts(load("a.html", source.encode(encoding))) == [words]


def test_what_a_page_hides_is_left_out_and_what_it_shows_in_fields_is_read() -> None:
    assert page(
        "<p>Shown</p><p hidden>gone</p><div style='color:red; DISPLAY : none'>gone <b>too</b></div>"
        "<noscript>gone</noscript><form><label>Name</label><input value='Mina Seo'><input type=hidden value=gone>"
        "<input type=password value=gone><select><option>Red<option selected>Blue</select>"
        "<textarea>free text</textarea>"
        "</form><p><img src=a.png alt='Map of Jeju'> here</p><svg><title>t</title><text>41 %</text></svg>"
    ) == ["Shown", "Name Mina Seo Red Blue free text", "Map of Jeju here", "41 %"]  # fmt: skip


def test_an_open_hidden_paragraph_does_not_hide_the_rest() -> None:
    assert page("<p hidden>gone<p>kept<p>kept too") == ["kept", "kept too"]


def test_a_page_whose_head_is_never_closed_is_read() -> None:
    assert page("<html><head><title>Fees</title><body><p>Entry is 3 euros") == ["Entry is 3 euros"]


def test_a_script_with_a_broken_end_does_not_swallow_the_page() -> None:
    assert page("<script>x()</script language><p>Entry is free</p>") == ["Entry is free"]


def test_navigation_is_left_out_unless_it_is_most_of_the_page() -> None:
    menu = "<nav><ul><li>Home<li>Prices</ul></nav>"
    assert page(f"{menu}<p>The museum opens at ten and closes at six.</p>") == [
        "The museum opens at ten and closes at six."
    ]
    assert page(f"<nav><nav>{menu}<p>All rooms are on floor two</p></nav></nav><p>ok") == [
        "- Home\n- Prices", "All rooms are on floor two", "ok",
    ]  # fmt: skip


def test_frames_are_said() -> None:
    document = load("a.html", b"<p>text</p><iframe src='https://example.com/a'></iframe>")
    assert (texts(document), document.omitted) == (["text"], ("1 page shown in a frame (iframe)",))


def test_tables_keep_their_cells_however_they_are_written() -> None:
    document = load(
        "a.html",
        "<table><caption>Fees 2026</caption><tr><th>이름<th>값<tr><td><p>큰 방</p><td>  <div>90<br>유로</div>"
        "<tr><td><td>12<img alt='(new)'></table>".encode(),
    )
    assert texts(document) == ["Fees 2026", "이름 | 값\n큰 방 | 90 유로\n12 (new)"]
    assert (document.blocks[1].kind, document.blocks[1].header) == (BlockKind.TABLE, "이름 | 값")


def test_tables_around_tables_lose_nothing() -> None:
    source = "<table><tr><td>left</td><td><table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>"
    assert page(source + "</td><td>right</td></tr></table>") == ["left", "a | b\nc | d", "right"]


def test_lists_of_terms_details_and_code_are_read() -> None:
    document = load(
        "a.html",
        b"<dl><dt>Deposit<dd>80 euros</dl><details><summary>Keys</summary>At the desk</details>"
        b"<pre>a\n  b</pre>&lt;end&gt;",
    )
    assert texts(document) == ["Deposit", "80 euros", "Keys", "At the desk", "a\n  b", "<end>"]
    assert document.blocks[4].kind is BlockKind.CODE


def test_headings_with_nothing_under_them_are_text() -> None:
    document = load("a.html", b"<title>Shop</title><h1>Closed in May</h1><h1>Open in June</h1><p>from 9")
    assert list(zip(headings(document), texts(document), strict=True)) == [
        (("Shop", "Closed in May"), "Closed in May"), (("Shop", "Open in June"), "from 9"),
    ]  # fmt: skip
    assert page("<title>Only a title</title>") == ["Only a title"]
    assert page(f"<h1>{'long ' * 60}end</h1><p>x")[0].endswith("end")


# ── e-mail ───────────────────────────────────────────────────────────────────────────────────────


def mail(plain: str | None, html: str | None = None, subject: str = "회의") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["Subject"] = "Seo <seo@example.com>", subject
    if plain is not None:
        message.set_content(plain)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


@pytest.mark.parametrize(
    "plain",
    [
        "\n",
        "Your mail program cannot show HTML.",
        "메일이 보이지 않으면 여기를 누르십시오.",
        "To view this message, use a browser.",
    ],
)
def test_the_page_is_read_where_the_plain_text_is_a_stand_in(plain: str) -> None:
    document = load("a.eml", mail(plain, "<p>방 번호는 <b>417</b></p>").as_bytes())
    assert texts(document)[1:] == ["방 번호는 417"]


def test_the_plain_text_is_read_where_it_is_one() -> None:
    document = load("a.eml", mail("Room 417 is ours.", "<p>Room 417 is ours.</p>").as_bytes())
    assert texts(document)[1:] == ["Room 417 is ours."]


@pytest.mark.parametrize(
    ("text", "charset", "said"),
    [
        ("점심은 한 시입니다.", "iso-2022-kr", "iso-2022-kr"), ("昼食は一時です。", "iso-2022-jp", "iso-2022-jp"),
        ("昼食は一時です。", "iso-2022-jp", "us-ascii"), ("午餐在一點鐘。", "gb18030", "gb2312"),
        ("午餐在一点钟。", "hz", "hz-gb-2312"),
        ("점심은 똠 식당입니다.", "cp949", "euc-kr"), ("점심은 한 시입니다.", "cp949", "iso-8859-1"),
        ("Mittag: fünf Gänge", "cp1252", "us-ascii"), ("Обед в час", "koi8-r", "koi8-r"),
    ],
)  # fmt: skip
def test_mail_is_read_in_the_encoding_it_is_in(text: str, charset: str, said: str) -> None:
    head = f"Subject: x\r\nContent-Type: text/plain; charset={said}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    assert texts(load("a.eml", head.encode() + text.encode(charset) + b"\r\n")) == [text]


def test_every_text_of_a_message_of_parts_is_read() -> None:
    message = mail("Before the picture.")
    message.make_mixed()
    message.attach(_part("image/png", b"\x89PNG", "plan.png"))
    message.attach(_part("text/plain", b"After the picture."))
    document = load("a.eml", message.as_bytes())
    assert texts(document)[1:] == ["Before the picture.", "After the picture.", "Attachments: plan.png"]
    assert document.omitted == ("1 attachment: plan.png",)


def _part(kind: str, data: bytes, name: str = "") -> EmailMessage:
    part = EmailMessage()
    part.set_content(data, *kind.split("/"), filename=name or None)
    if not name:
        del part["Content-Disposition"]
    return part


def test_attached_text_is_read_under_its_name_and_other_files_are_said() -> None:
    message = mail("See the list.")
    message.add_attachment("lamp,30 euros", subtype="csv", filename="가격.csv")
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="plan.pdf")
    message.add_attachment(b"note of Kim", maintype="application", subtype="octet-stream", filename="note.txt")
    document = load("a.eml", message.as_bytes())
    assert list(zip(headings(document), texts(document), strict=True))[1:] == [
        (("회의",), "See the list."), (("회의",), "Attachments: 가격.csv, plan.pdf, note.txt"),
        (("회의", "가격.csv"), "lamp,30 euros"), (("회의", "note.txt"), "note of Kim"),
    ]  # fmt: skip
    assert document.omitted == ("1 attachment: plan.pdf",)


def test_an_attachment_that_is_no_text_whatever_it_is_called_is_said_and_the_rest_is_read() -> None:
    message = mail("See the log.")
    message.add_attachment(b"\1\2\3" * 99, maintype="text", subtype="plain", filename="a.log")
    message.add_attachment("fine", filename="b.txt")
    document = load("a.eml", message.as_bytes())
    assert texts(document)[1:] == ["See the log.", "Attachments: a.log, b.txt", "fine"]
    assert document.omitted == ("a.log: the content is not text: a binary file with a text file's name",)
    streams = outlook("__attach_version1.0_#00000000/", 8, _3707="c.txt", _37010102=b"\1\2" * 99)
    outlooks = load("a.msg", compound(outlook(_1000="Hello", **WHO) | streams))
    assert outlooks.omitted == ("c.txt: the content is not text: a binary file with a text file's name",)


@pytest.mark.parametrize("said", ["punycode", "zlib", "unicode_escape", "a\0b", "utf-8; x=", "hex"])
def test_an_encoding_that_is_none_is_passed_over(said: str) -> None:
    head = f'Subject: x\r\nContent-Type: text/plain; charset="{said}"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
    assert texts(load("a.eml", head.encode() + "방은 셋\\u0041\r\n".encode("cp949"))) == ["방은 셋\\u0041"]


def test_an_invitation_is_read_as_lines() -> None:
    invitation = (
        "BEGIN:VCALENDAR\r\nBEGIN:VTIMEZONE\r\nDTSTART:19700101T000000\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT\r\n"
        "SUMMARY:예산 회의\r\nDTSTART;TZID=Asia/Seoul:20260504T143000\r\nDTEND:20260504T063000Z\r\n"
        "LOCATION:3층\\, 큰 방\r\n"
        'ATTENDEE;CN="Lee Jun":mailto:lee@example.com\r\nDESCRIPTION:Bring the\r\n  figures\\nof May\r\nEND:VEVENT\r\n'
        "END:VCALENDAR\r\n"
    )
    message = mail("Invitation", "<p>Invitation</p>")
    message.attach(_part("text/calendar", invitation.encode()))
    assert texts(load("a.eml", message.as_bytes()))[2] == (
        "Event: 예산 회의\nStart: 2026-05-04 14:30 (Asia/Seoul)\nEnd: 2026-05-04 06:30 UTC\nPlace: 3층, 큰 방\n"
        "Attendee: Lee Jun <lee@example.com>\nDescription: Bring the figures of May"
    )


def test_an_encrypted_message_says_so() -> None:
    head = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/encrypted; boundary=b\r\n\r\n"
    body = "--b\r\nContent-Type: application/octet-stream\r\n\r\nhQEM\r\n--b--\r\n"
    document = load("a.eml", (head + body).encode())
    assert (texts(document), document.omitted) == (["x"], ("a text that is encrypted",))


def test_messages_in_messages_beyond_the_bound_are_said() -> None:
    message = mail("innermost", subject="0")
    for depth in range(1, 12):
        outer = mail(f"depth {depth}", subject=str(depth))
        outer.add_attachment(message)
        message = outer
    document = load("a.eml", message.as_bytes())
    assert ("depth 3" in document.text, "innermost" in document.text) == (True, False)
    assert document.omitted == ("messages forwarded inside of others many times over",)


def test_a_message_in_utf16_without_a_mark_is_read() -> None:
    assert texts(load("a.eml", "Subject: Hi there\n\nThe code is 5521.\n".encode("utf-16-le"))) == ["The code is 5521."]


def test_a_saved_page_is_read_without_its_envelope() -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "<Saved by Blink>", "Fees"
    message.set_content("<title>Fees</title><h1>입장료</h1><p>어른 4,000원</p>", subtype="html", charset="utf-8")
    message.make_related()
    message.attach(_part("image/png", b"\x89PNG"))
    document = load("a.mht", message.as_bytes())
    assert list(zip(headings(document), texts(document), strict=True)) == [(("Fees", "입장료"), "어른 4,000원")]
    with pytest.raises(KnowledgeError, match="not a saved web page"):
        load("a.mhtml", b"\x01\x02 nothing")


# ── Outlook ──────────────────────────────────────────────────────────────────────────────────────


def outlook(prefix: str = "", head: int = 32, code_page: int = 0, **values: str | bytes) -> dict[str, bytes]:
    """Streams of a message; a value of str is stored wide."""
    sent = datetime.datetime(2026, 5, 4, 5, 30, tzinfo=datetime.UTC) - datetime.datetime(
        1601, 1, 1, tzinfo=datetime.UTC
    )
    listed = struct.pack("<HHIQ", 0x40, 0x39, 6, int(sent.total_seconds()) * 10_000_000)
    listed += struct.pack("<HHIQ", 3, 0x3FFD, 6, code_page) if code_page else b""
    streams = {f"{prefix}__properties_version1.0": bytes(head) + listed}
    for name, value in values.items():
        kind = "001F" if isinstance(value, str) else ""
        streams[f"{prefix}__substg1.0_{name.removeprefix('_')}{kind}"] = (
            value.encode("utf-16-le") if isinstance(value, str) else value
        )
    return streams


WHO = {"_0037": "이사 안내", "_0C1A": "Kim Ara", "_5D01": "ara@example.com", "_0E04": "모두"}
WHO_SAYS = "From: Kim Ara <ara@example.com>\nTo: 모두\nDate: 2026-05-04 05:30 UTC"


def test_an_outlook_message_is_read_like_an_email() -> None:
    prefix = "__attach_version1.0_#00000000/"
    inner = "__attach_version1.0_#00000001/"
    streams = (
        outlook(_1000="새 주소는 서울시 중구.\r\n\r\n금요일에 옮긴다.", **WHO)
        | outlook(prefix, 8, _3707="도면.dwg")
        | outlook(inner, 8)
        | outlook(f"{inner}__substg1.0_3701000D/", 24, _0037="Fwd", _1000="안쪽 글")
        | outlook("__attach_version1.0_#00000002/", 8, **{"_3707": "note.txt", "_37010102": "메모".encode()})
    )
    document = load("a.msg", compound(streams))
    assert list(zip(headings(document), texts(document), strict=True)) == [
        (("이사 안내",), WHO_SAYS), (("이사 안내",), "새 주소는 서울시 중구."), (("이사 안내",), "금요일에 옮긴다."),
        (("이사 안내",), "Attachments: 도면.dwg, note.txt"), (("이사 안내", "note.txt"), "메모"),
        (("이사 안내", "Fwd"), "Date: 2026-05-04 05:30 UTC"), (("이사 안내", "Fwd"), "안쪽 글"),
    ]  # fmt: skip
    assert document.omitted == ("1 attachment: 도면.dwg",)


def test_html_and_rich_text_bodies_are_read_where_there_is_no_plain_one() -> None:
    html = outlook(**WHO, **{"_10130102": "<p>층은 <b>7</b>층</p>".encode()})
    assert texts(load("a.msg", compound(html)))[1:] == ["층은 7층"]
    source = b"{\\rtf1 The desk is by the door}"
    stored = struct.pack("<II4sI", len(source) + 12, len(source), b"MELA", 0) + source
    assert texts(load("a.msg", compound(outlook(**WHO, _10090102=stored))))[1:] == ["The desk is by the door"]


def test_packed_rich_text_is_unpacked_with_its_references() -> None:
    plain = b"{\\rtf1 ab}"
    letters = b"".join(bytes([0]) + plain[at : at + 8] for at in range(0, 8, 8)) + bytes([4]) + plain[8:10]
    end = struct.pack(">H", (207 + len(plain)) % 4096 << 4)
    assert unpacked_rtf(struct.pack("<II4sI", 99, 10, b"LZFu", 0) + letters + end) == plain
    start = bytes([1]) + struct.pack(">H", 0 << 4 | 4)  # the first six bytes of what every window begins with
    assert unpacked_rtf(struct.pack("<II4sI", 99, 6, b"LZFu", 0) + start) == b"{\\rtf1"
    with pytest.raises(KnowledgeError, match="its text cannot be unpacked"):
        unpacked_rtf(b"nothing")


def test_an_outlook_message_of_before_unicode_is_read_in_its_code_page() -> None:
    streams = outlook(
        code_page=949, **{"_0037001E": "견적".encode("cp949"), "_1000001E": "단가는 3만 원".encode("cp949")}
    )
    document = load("a.msg", compound(streams))
    assert (texts(document)[1], headings(document)[1]) == ("단가는 3만 원", ("견적",))
    with pytest.raises(KnowledgeError, match=r"not a \.msg file"):
        load("a.msg", compound({"other": b"x"}))
