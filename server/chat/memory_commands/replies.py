"""The server's replies to memory commands: "what do you know about me?", "forget that I like tea".

Exact, from the store, in English or Korean as the user wrote. Pure but for `answer_command`, which runs the command. A
reply never repeats what was deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.chat.conversations.records import StoredMessage
from server.chat.conversations.redactor import Replacement
from server.chat.events import Mention
from server.chat.memory_commands.access import ChatMemory, DeletionReceipt
from server.memory import ForgetCommand, ListCommand
from server.prompting import memory_line
from server.types import Memory
from server.words import has_hangul

ERASE_CONFIRMATION: Final = "ask to erase"  # `CommandReply.command` of the question that asks to confirm
MAX_LINES: Final = 200  # of one answer; the page has them all


def disabled_text(why: str, *, korean: bool) -> str:
    """For a chat that has no memory: `why` is 'temporary', 'domain' or 'switched off'."""
    if why == "temporary":
        if korean:
            return "이 대화는 임시 대화라서 기억을 쓰지도, 저장하거나 지우지도 않아요. 보통 대화에서 말씀해 주세요."
        return "This is a temporary chat: it reads, keeps and deletes no memories. Ask again in an ordinary chat."
    if why == "switched off":
        if korean:
            return "이 도메인에서는 기억을 꺼 두셨어요. 기억 화면에서 다시 켜거나 다른 도메인에서 말씀해 주세요."
        return "You have switched memory off in this domain. The memory panel switches it on, or ask in another domain."
    if korean:
        return "이 도메인에서는 기억이 꺼져 있어요. 다른 도메인에서 다시 말씀해 주세요."
    return "Memory is off in this domain. Ask again in another domain."


def listing_text(memories: Sequence[Memory], *, paused: bool, korean: bool) -> str:
    """All memories, a line each."""
    if not memories:
        text = "아직 기억하고 있는 것이 없어요." if korean else "I keep nothing about you yet."
        return f"{text} {_paused_text(korean=korean)}" if paused else text
    count = len(memories)
    head = f"제가 기억하고 있는 것은 {count}개예요." if korean else f"This is what I keep about you ({count}):"
    lines = [memory_line(memory) for memory in memories[:MAX_LINES]]
    left = count - len(lines)
    foot = []
    if left:
        foot.append(f"그 밖에 {left}개가 더 있어요." if korean else f"And {left} more.")
    foot.append(
        "기억 화면에서 어떤 말에서 왔는지 보고, 고치거나 지울 수 있어요."
        if korean
        else "The memory panel shows the words each came from; there you can change or delete it."
    )
    if paused:
        foot.append(_paused_text(korean=korean))
    return "\n".join([head, "", *lines, "", " ".join(foot)])


def _paused_text(*, korean: bool) -> str:
    if korean:
        return "지금은 기억이 멈춰 있어서 새로 저장하지도, 쓰지도 않아요."
    return "Memory is paused: nothing is saved or used."


def deletion_text(receipt: DeletionReceipt, *, korean: bool) -> str:
    """What was done, without the deleted texts."""
    count, cleaned = len(receipt.memories), receipt.cleaned
    if not count:
        if korean:
            return "그런 기억은 없어서 지운 것이 없어요. '나에 대해 뭘 알고 있어?'라고 물으면 모두 보여 드려요."
        return 'I keep nothing like that, so nothing was deleted. Ask "what do you know about me?" to see all.'
    if korean:
        prompts = f" 저장된 프롬프트 {cleaned.prompts}개에서도 지웠어요." if cleaned.prompts else ""
        said = f" 그렇게 말한 메시지 {cleaned.messages}개에서도 그 말을 뺐어요." if cleaned.messages else ""
        return f"기억 {count}개를 완전히 지웠어요.{prompts}{said}{_mentions_text(receipt, korean=True)}"
    things = "1 memory" if count == 1 else f"{count} memories"
    stored = "1 stored prompt" if cleaned.prompts == 1 else f"{cleaned.prompts} stored prompts"
    prompts = f", and took {'it' if count == 1 else 'them'} out of {stored}" if cleaned.prompts else ""
    messages = "1 message" if cleaned.messages == 1 else f"{cleaned.messages} messages"
    said = f" The words that said so are gone from {messages}, too." if cleaned.messages else ""
    return f"Forgotten: I have deleted {things} for good{prompts}.{said}{_mentions_text(receipt, korean=False)}"


def _mentions_text(receipt: DeletionReceipt, *, korean: bool) -> str:
    """Which chats, the receipt lists: a title could say it again."""
    count = sum(one.messages for one in receipt.mentions)
    if not count:
        return ""
    if korean:
        return f" 다른 말로 언급한 메시지가 {count}개 남아 있어요. 그 대화를 지우면 함께 지워져요."
    messages = "1 other message still mentions" if count == 1 else f"{count} other messages still mention"
    return f" {messages} it in other words; delete those chats to remove that, too."


def erase_confirmation_text(count: int, *, korean: bool) -> str:
    """Erasing everything must be confirmed."""
    if not count:
        return listing_text((), paused=False, korean=korean)
    if korean:
        return f"기억 {count}개를 모두 영원히 지울까요? 되돌릴 수 없어요. 지우려면 한 번 더 말씀해 주세요."
    things = "the 1 memory" if count == 1 else f"all {count} memories"
    return f"This would delete {things} of you for good, and cannot be undone. Say it once more to do it."


@dataclass(frozen=True, slots=True)
class CommandReply:
    """The reply to a memory command, and what was listed or deleted. `command` is stored with the answer."""

    text: str
    command: str
    listed: tuple[Memory, ...] = ()
    deleted: tuple[Memory, ...] = ()
    mentions: tuple[Mention, ...] = ()


async def answer_command(
    command: ListCommand | ForgetCommand, memory: ChatMemory, question: StoredMessage, *, erase_requested: bool
) -> CommandReply:
    """Runs the command. `erase_requested`: the reply before this one asked to confirm that all is erased."""
    korean = has_hangul(question.text)
    if memory.disabled_reason:
        return CommandReply(disabled_text(memory.disabled_reason, korean=korean), "refused")
    memories, paused = await memory.list_current()
    if isinstance(command, ListCommand):
        return CommandReply(listing_text(memories, paused=paused, korean=korean), "tell", memories[:MAX_LINES])
    if command.everything and not (erase_requested and memories):
        return CommandReply(erase_confirmation_text(len(memories), korean=korean), ERASE_CONFIRMATION)
    if command.everything:
        receipt = await memory.erase()
    else:
        receipt = await memory.forget(command.about, Replacement(question.id, command.redacted))
    return CommandReply(deletion_text(receipt, korean=korean), "forget", (), receipt.memories, receipt.mentions)
