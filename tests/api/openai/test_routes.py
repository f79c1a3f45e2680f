"""The official `openai` client against `/v1`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest

from server.api.openai import routes
from server.errors import AnswerFailed, OutputFormatError
from server.types import GenerationRequest
from tests.fakes import ScriptedEngine
from tests.live import LiveServer, make_app, make_workspace, serving


def script(request: GenerationRequest, prompt: str) -> str:
    if request.constraint is not None:
        return '{"answer": 4}'
    if "45 days" in prompt:
        return "Within 45 days [1]."
    return f"adapter={request.adapter}"


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(script, adapters=["helper", "poet"])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, engine: ScriptedEngine) -> Iterator[LiveServer]:
    with serving(make_app(make_workspace(tmp_path_factory.mktemp("v1")), engine)) as served:
        yield served


@pytest.fixture
def client(live: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as openai_client:
        yield openai_client


def ask(client: openai.OpenAI, model: str, text: str = "Hi", **options: object) -> object:
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)  # type: ignore[call-overload]


def test_models(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"base", "general", "support", "helper", "poet"}


@pytest.mark.parametrize("model", ["base", "general"])
def test_the_engine_expects_requests_until_they_begin(
    client: openai.OpenAI, engine: ScriptedEngine, model: str
) -> None:
    engine.announced.clear()
    ask(client, model, n=3)
    assert max(engine.announced) == 3
    assert engine.expected == 0


@pytest.mark.parametrize(
    ("model", "adapter"),
    [("base", "None"), ("poet", "poet"), ("helper@1", "helper@1"), ("general", "None")],
)
def test_each_kind_of_model_answers(client: openai.OpenAI, model: str, adapter: str) -> None:
    reply = ask(client, model)
    assert reply.choices[0].message.content == f"adapter={adapter}"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.model == model


def test_a_domain_brings_its_knowledge_and_says_so(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    reply = ask(client, "support", "How many days to return a lamp after delivery?")
    assert reply.choices[0].message.content == "Within 45 days [1]."
    extras = reply.model_extra["tailor"]
    assert extras["passages"][0]["passage"]["file"] == "refunds.md"
    assert extras["unread"] == 0, "every file of its folders was known to it"
    assert [citation["n"] for citation in extras["citations"]] == [1]
    (checked,) = extras["checks"]
    assert (checked["verdict"], checked["marks"][0]["shown"]) == ("supported", [1])
    assert extras["shown"] == "Within 45 days [1]."
    assert engine.requests[-1].adapter == "helper"


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_citation_is_corrected_beside_the_answer(
    client: openai.OpenAI, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(engine, "script", lambda request, prompt: "Within 45 days [9]. Within 60 days [1].")
    reply = ask(client, "support", "How many days to return a lamp after delivery?", stream=stream)
    if stream:
        chunks = list(reply)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        (extras,) = [chunk.model_extra["tailor"] for chunk in chunks if "tailor" in (chunk.model_extra or {})]
    else:
        text, extras = reply.choices[0].message.content, reply.model_extra["tailor"]
    assert text == "Within 45 days [9]. Within 60 days [1]."
    assert extras["shown"] == "Within 45 days [1]. Within 60 days."
    assert [each["verdict"] for each in extras["checks"]] == ["corrected", "dropped"]
    assert extras["invalid_citations"] == [9]


def test_auto_routes(client: openai.OpenAI) -> None:
    assert ask(client, "auto", "Where is my parcel?").model_extra["tailor"]["domain"] == "support"
    assert ask(client, "auto", "Sing").model_extra["tailor"]["domain"] == "general"


def test_streaming_gives_the_same_text(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "support", "Return a lamp?", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Within 45 days [1]."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 4
    (extras,) = [chunk.model_extra["tailor"] for chunk in chunks if "tailor" in (chunk.model_extra or {})]
    assert extras["domain"] == "support"


def test_the_callers_settings_reach_the_engine(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    ask(
        client,
        "base",
        temperature=0.3,
        top_p=0.9,
        max_tokens=7,
        stop=["END"],
        seed=5,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logit_bias={"65": -100},
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 11, "min_p": 0.05, "repetition_penalty": 1.1},
    )
    sampling = engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop) == (0.3, 0.9, 7, ("END",))
    assert (sampling.seed, sampling.presence_penalty, sampling.frequency_penalty) == (5, 0.5, 0.25)
    assert sampling.logit_bias == {65: -100}
    assert (sampling.logprobs, sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (2, 11, 0.05, 1.1)


def test_several_answers_differ_in_their_seed(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    before = len(engine.requests)
    reply = ask(client, "base", n=3, seed=5)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert sorted(request.sampling.seed for request in engine.requests[before:]) == [5, 6, 7]
    streamed = list(ask(client, "general", n=2, stream=True))
    texts = {0: "", 1: ""}
    for chunk in streamed:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "adapter=None", 1: "adapter=None"}


def test_a_schema_constrains(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": schema}}
    for model in ("base", "general"):
        assert json.loads(ask(client, model, response_format=wanted).choices[0].message.content) == {"answer": 4}
        constraint = engine.requests[-1].constraint
        assert constraint is not None
        assert json.loads(constraint.source) == schema
    ask(client, "base", response_format={"type": "json_object"})
    assert engine.requests[-1].constraint.source == '{"type": "object"}'  # type: ignore[union-attr]


def test_history_and_system_text_are_seen(client: openai.OpenAI, engine: ScriptedEngine) -> None:
    messages = [
        {"role": "system", "content": "Speak like a pirate."},
        {"role": "user", "content": "First question"},
        {"role": "assistant", "content": "First answer"},
        {"role": "user", "content": [{"type": "text", "text": "Second question"}]},
    ]
    for model in ("base", "general"):
        client.chat.completions.create(model=model, messages=messages)  # type: ignore[arg-type]
        prompt = engine.tokenizer.decode(engine.requests[-1].prompt)
        places = [prompt.index(text) for text in ("pirate", "First question", "First answer", "Second question")]
        assert places == sorted(places)
    assert "helpful assistant" in prompt  # the domain's own system text is there too


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "nobody", "messages": [{"role": "user", "content": "x"}]}, 404, "nobody"),
        ({"model": "base", "messages": []}, 400, "messages"),
        ({"model": "base", "messages": [{"role": "assistant", "content": "x"}]}, 400, "last"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "temperature": 9}, 400, "temperature"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "tools"),
        ({"model": "base", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "image_url"),
        ({"model": "base", "messages": [{"role": "user", "content": "x"}], "logit_bias": {"a": 1}}, 400, "token ids"),
        ({"model": "general", "messages": [{"role": "user", "content": " "}]}, 400, "empty"),
        (
            {"model": "base", "messages": [{"role": "user", "content": "x"}], "response_format": {"type": "xml"}},
            400,
            "json",
        ),
    ],
)
def test_bad_requests_say_what_is_wrong(live: LiveServer, body: dict[str, object], status: int, says: str) -> None:
    response = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_an_error_before_the_first_token_keeps_its_status(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(client, "nobody", stream=True)


def test_embeddings(client: openai.OpenAI, live: LiveServer) -> None:
    reply = client.embeddings.create(model="any", input=["a lamp", "a lamp", "the sea"])
    first, same, other = (item.embedding for item in reply.data)
    assert first == same
    assert math.isclose(sum(value * value for value in first), 1, rel_tol=1e-5)
    assert first != other
    assert reply.usage.prompt_tokens == 6
    single = client.embeddings.create(model="any", input="a lamp", encoding_format="float")
    assert single.data[0].embedding == pytest.approx(first)
    refused = httpx.post(f"{live.url}/v1/embeddings", json={"input": [], "model": "any"}, timeout=60)
    assert refused.status_code == 400
    assert httpx.post(f"{live.url}/v1/embeddings", json={"input": "x", "dimensions": 3}, timeout=60).status_code == 400


# ── clients that go, rows that fail ──────────────────────────────────────────────────────────────


@pytest.fixture
def slow(tmp_path) -> Iterator[tuple[ScriptedEngine, str]]:
    """An engine whose answers take minutes, and the address of its server."""
    engine = ScriptedEngine(lambda request, prompt: "word " * 1000, pause=0.2)
    with serving(make_app(make_workspace(tmp_path), engine)) as served:
        yield engine, f"{served.url}/v1/chat/completions"


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("model", ["base", "general"])
def test_a_client_that_goes_stops_its_rows(slow: tuple[ScriptedEngine, str], model: str, n: int) -> None:
    engine, url = slow
    body = {"model": model, "n": n, "messages": [{"role": "user", "content": "Hi"}]}
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(url, json=body, timeout=httpx.Timeout(60, read=1.5))
    until(lambda: len(engine.requests) == n)
    until(lambda: engine.running == 0)
    assert (engine.cancelled, engine.finished) == (n, 0)


def test_a_stream_without_a_word_yet_stops_too(tmp_path) -> None:
    engine = ScriptedEngine(pause=60)
    with serving(make_app(make_workspace(tmp_path), engine)) as served:
        body = {"model": "base", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
            client.post(f"{served.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=1.5))
        until(lambda: engine.running == 0)
        assert engine.cancelled == 1


@pytest.mark.parametrize("error", [OutputFormatError("it leads nowhere"), AnswerFailed("it broke"), KeyError("secret")])
@pytest.mark.parametrize("stream", [False, True])
def test_one_answer_that_fails_stops_the_others(tmp_path, error: Exception, stream: bool) -> None:
    def script(request: GenerationRequest, prompt: str) -> str:
        if request.sampling.seed == 2:
            raise error
        return "word " * 1000

    engine = ScriptedEngine(script, pause=0.2)
    status, code = {OutputFormatError: (422, "output_format"), AnswerFailed: (500, "answer_failed")}.get(
        type(error), (500, "internal")
    )
    body = {"model": "base", "n": 3, "seed": 1, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    with serving(make_app(make_workspace(tmp_path), engine)) as served:
        response = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
        until(lambda: engine.running == 0)
    assert engine.finished == 0
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert "secret" not in response.text


def test_embeddings_come_in_pieces_and_have_a_bound(client: openai.OpenAI, live: LiveServer) -> None:
    texts = [f"text {number}" for number in range(routes.EMBEDDINGS_AT_ONCE + 5)]
    reply = client.embeddings.create(model="any", input=texts, encoding_format="float")
    assert [item.index for item in reply.data] == list(range(len(texts)))
    last = client.embeddings.create(model="any", input=texts[-1], encoding_format="float")
    assert reply.data[-1].embedding == pytest.approx(last.data[0].embedding)
    large = {"model": "any", "input": ["x" * (routes.MAX_EMBEDDING_CHARS // 2)] * 3}
    refused = httpx.post(f"{live.url}/v1/embeddings", json=large, timeout=60)
    assert refused.status_code == 413
    assert "1,000,000" in refused.json()["error"]["message"]


def test_nothing_of_it_is_stored(client: openai.OpenAI, live: LiveServer) -> None:
    ask(client, "general", "Remember that I like tea. My name is Mina.")
    assert httpx.get(f"{live.url}/api/conversations", timeout=60).json()["conversations"] == []
    assert httpx.get(f"{live.url}/api/memories", timeout=60).json()["memories"] == []


def test_a_strict_domain_says_that_its_sources_hold_nothing(
    client: openai.OpenAI, live: LiveServer, engine: ScriptedEngine
) -> None:
    prompt = live.app.state.services.settings.paths.prompts / "strict.md"
    prompt.write_text(
        '---\nknowledge: [support]\ngrounding: strict\nroutes: ["Which marathon did the zebras win?"]\n---\nAnswer.'
    )
    asked = len(engine.requests)
    reply = ask(client, "strict", "Which marathon did zebras win in Norway?")
    assert reply.choices[0].message.content == "I found nothing about this. I searched: support."
    assert reply.usage.total_tokens == 0
    assert reply.tailor["passages"] == []
    streamed = "".join(part.choices[0].delta.content or "" for part in ask(client, "strict",
                       "Which marathon did zebras win in Norway?", stream=True) if part.choices)  # fmt: skip
    assert streamed == reply.choices[0].message.content
    assert len(engine.requests) == asked
    forced = ask(client, "strict", "Which marathon did zebras win in Norway?", response_format={"type": "json_object"})
    assert forced.choices[0].message.content == '{"answer": 4}'
    assert "none found" in engine.tokenizer.decode(engine.requests[-1].prompt)
    prompt.unlink()
