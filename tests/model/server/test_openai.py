"""What OpenAI's API allows is answered as it says, or refused by name; nothing is passed over."""

import json
import time
from typing import Any

import httpx
import openai
import pytest

from rollmill.model import ToolCall
from rollmill.model.engine import Token
from rollmill.model.server.answer import Piece
from rollmill.model.server.replies import Answer, event
from rollmill.model.server.shape import ChatShape, TextShape
from rollmill.model.tokenizer import END_THINK, INVOKE, TOOL_CALL, Tokenizer

HELLO = [{"role": "user", "content": "hello"}]
BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": None,
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
        "strict": None,
    },
}
SHARED = ("temperature", "top_p", "n", "stream", "frequency_penalty", "presence_penalty", "user",
          "logprobs", "max_tokens", "stop", "logit_bias", "seed", "stream_options",
          "top_k", "best_of", "return_token_ids", "model")  # fmt: skip
CHAT = ("top_logprobs", "tools", "tool_choice", "response_format", "parallel_tool_calls",
        "max_completion_tokens", "functions", "modalities", "audio")  # fmt: skip
TEXT = ("echo", "suffix")


def post(address: str, path: str, **body: object) -> httpx.Response:
    # Not httpx's own JSON, which cannot write half a surrogate pair.
    text, kind = json.dumps(body), {"content-type": "application/json"}
    return httpx.post(f"{address}/v1/{path}", content=text, headers=kind, timeout=60)


def chat(address: str, **body: object) -> httpx.Response:
    return post(address, "chat/completions", **({"messages": HELLO, "max_tokens": 4} | body))


def complete(address: str, **body: object) -> httpx.Response:
    return post(address, "completions", **({"prompt": "hello", "max_tokens": 4} | body))


def test_null_is_as_good_as_nothing(address: str) -> None:
    for name in (*SHARED, *CHAT):
        # By default an answer takes all that the context has room for.
        limit = "max_tokens" if name == "max_completion_tokens" else "max_completion_tokens"
        assert chat(address, **{limit: 2, name: None}).status_code == 200, name
    for name in (*SHARED, *TEXT):
        assert complete(address, **{name: None}).status_code == 200, name
    assert chat(address, tools=[BASH]).status_code == 200
    assert chat(address, messages=None).status_code == 400


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"response_format": {"type": "json_object"}}, 'response_format = {"type": "text"}'),
        ({"best_of": 3}, r"best_of = n (1), got 3"),
        ({"suffix": "x"}, 'suffix = "", got "x"'),
        ({"functions": [{"name": "f"}]}, "functions = [], got"),
        ({"audio": {"voice": "alloy"}}, "expected no audio, got"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(
    address: str, asked: dict[str, object], message: str
) -> None:
    for answer in (chat(address, **asked), complete(address, **asked)):
        assert answer.status_code == 400
        assert message in answer.json()["error"]["message"]
        assert "Value error" not in answer.text


def test_what_asks_for_the_default_is_answered(address: str) -> None:
    asked = {"response_format": {"type": "text"}, "best_of": 2, "n": 2, "functions": []}
    assert len(chat(address, **asked).json()["choices"]) == 2
    assert chat(address, parallel_tool_calls=True).status_code == 200


def test_several_prompts_get_the_choices_of_each_in_order(client: openai.OpenAI) -> None:
    def ask(prompt: Any, **more: Any) -> Any:
        return client.completions.create(
            model="tiny",
            prompt=prompt,
            max_tokens=9,
            seed=5,
            n=2,
            extra_body={"return_token_ids": True},
            **more,
        )

    alone = [ask(prompt) for prompt in ("hello", "there bash")]
    ids = [each.prompt_token_ids for each in alone]
    expected = [choice.token_ids for each in alone for choice in each.choices]
    for prompts in (["hello", "there bash"], ids):
        got = ask(prompts)
        assert [choice.index for choice in got.choices] == [0, 1, 2, 3]
        assert [choice.token_ids for choice in got.choices] == expected
        assert got.prompt_token_ids == ids
        assert got.usage.prompt_tokens == sum(map(len, ids))
        assert got.usage.completion_tokens == sum(map(len, expected))
    streamed: dict[int, list[int]] = {at: [] for at in range(4)}
    for chunk in ask(ids, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].token_ids
    assert list(streamed.values()) == expected
    assert ask([ids[0]]).prompt_token_ids == [ids[0]]  # a list of one


def test_too_many_or_empty_prompts_are_refused(address: str) -> None:
    answer = complete(address, prompt=["a"] * 100, n=100)
    assert answer.status_code == 400
    assert "at most 2048 choices" in answer.json()["error"]["message"]
    empty: tuple[object, ...] = ([], [[]], ["a", ""])
    for nothing in empty:
        assert complete(address, prompt=nothing).status_code == 400


def test_an_echo_begins_each_choice_with_its_prompt(client: openai.OpenAI, address: str) -> None:
    settings: dict[str, Any] = {"model": "tiny", "max_tokens": 6, "seed": 3}
    prompts = ["hello é", "there"]
    plain = client.completions.create(prompt=prompts, **settings)
    echoed = client.completions.create(prompt=prompts, echo=True, **settings)
    for prompt, without, behind in zip(prompts, plain.choices, echoed.choices, strict=True):
        assert behind.text == prompt + without.text
    chunks = client.completions.create(prompt=prompts[0], echo=True, stream=True, **settings)
    assert "".join(chunk.choices[0].text for chunk in chunks) == echoed.choices[0].text


def test_an_echo_with_logprobs_scores_the_prompt(
    client: openai.OpenAI, tokenizer: Tokenizer
) -> None:
    settings: dict[str, Any] = {"model": "tiny", "max_tokens": 6, "seed": 3, "logprobs": 2}
    text = "hello é there"
    ids = tokenizer.encode(text)
    asked = client.completions.create(prompt=text, echo=True, **settings).choices[0]
    made = client.completions.create(prompt=text, **settings).choices[0]
    assert asked.logprobs
    assert made.logprobs
    assert asked.logprobs.token_logprobs
    assert asked.logprobs.top_logprobs
    assert asked.logprobs.tokens == names_of(ids, tokenizer) + (made.logprobs.tokens or [])
    assert asked.logprobs.token_logprobs[0] is asked.logprobs.top_logprobs[0] is None
    # What the model says of the third token is what it says when asked for it.
    third = client.completions.create(
        prompt=ids[:2], model="tiny", max_tokens=1, logprobs=2, logit_bias={str(ids[2]): 100}
    ).choices[0]
    assert third.logprobs
    assert third.logprobs.token_logprobs
    assert third.logprobs.top_logprobs
    assert third.logprobs.token_logprobs[0] == pytest.approx(asked.logprobs.token_logprobs[2])
    assert asked.logprobs.top_logprobs[2] == pytest.approx(third.logprobs.top_logprobs[0])
    offsets = asked.logprobs.text_offset or []
    assert offsets[0] == 0
    assert offsets[len(ids)] == len(text)
    assert offsets == sorted(offsets)
    chunks = list(client.completions.create(prompt=text, echo=True, stream=True, **settings))
    assert "".join(chunk.choices[0].text for chunk in chunks) == asked.text
    streamed = [chunk.choices[0].logprobs for chunk in chunks]
    together = [each for some in streamed if some for each in some.token_logprobs or ()]
    assert together == pytest.approx(asked.logprobs.token_logprobs)
    assert [each for some in streamed if some for each in some.text_offset or ()] == offsets


def test_a_prompt_alone_may_be_scored(
    client: openai.OpenAI, address: str, tokenizer: Tokenizer
) -> None:
    prompts = ["hello there", "h"]
    answer = client.completions.create(
        model="tiny", prompt=prompts, echo=True, logprobs=0, max_tokens=0
    )
    assert [each.text for each in answer.choices] == prompts
    assert [each.finish_reason for each in answer.choices] == ["length"] * 2
    scores = [len(each.logprobs.token_logprobs or ()) for each in answer.choices if each.logprobs]
    assert scores == [len(tokenizer.encode(each)) for each in prompts]
    assert answer.usage
    assert answer.usage.completion_tokens == 0
    assert complete(address, max_tokens=0).status_code == 400


def names_of(ids: list[int], tokenizer: Tokenizer) -> list[str]:
    shape = TextShape(tokenizer, logprobs=True, token_ids=False)
    (scores,) = scored(shape, ids, streamed=False)
    return list(scores["tokens"])


def test_calls_that_must_not_be_parallel_are_at_most_one(
    address: str, tokenizer: Tokenizer
) -> None:
    # Markers are made likely, so that a random model wants call after call.
    likely = {str(token_id): 9 for token_id in tokenizer.markers.values()}
    likely[str(tokenizer.special_id(INVOKE))] = 30
    likely[str(tokenizer.special_id(END_THINK))] = likely[str(tokenizer.special_id(TOOL_CALL))] = 30
    asked = {"tools": [BASH], "max_tokens": 900, "seed": 1, "logit_bias": likely}

    def calls(**more: object) -> int:
        choice = chat(address, **asked, **more).json()["choices"][0]
        return len(choice["message"].get("tool_calls", ()))

    assert calls(parallel_tool_calls=False) == 1
    assert calls(parallel_tool_calls=False, tool_choice="required") == 1
    # Nothing to hold back where nothing may be called.
    assert chat(address, parallel_tool_calls=False).status_code == 200


def test_a_lone_surrogate_is_no_error_of_the_server(address: str) -> None:
    named = {"type": "function", "function": {"name": "\ud800"}}
    answer = chat(address, tools=[BASH], tool_choice=named)
    assert answer.status_code == 400
    assert "got ?" in answer.json()["error"]["message"]
    assert chat(address, messages=[{"role": "user", "content": "\ud800"}]).status_code == 200
    assert complete(address, prompt="\ud800").status_code == 200


def scored(shape: TextShape, ids: list[int], *, streamed: bool) -> list[dict[str, Any]]:
    pieces = [Piece(tokens=[Token(token_id=each, logprob=-1.0, version=0)]) for each in ids]
    groups = [[piece] for piece in pieces] if streamed else [pieces]
    return [shape.choice(0, group, streamed=streamed)["logprobs"] for group in groups]


def test_tokens_within_a_character_have_their_own_bytes_and_its_offset(
    tokenizer: Tokenizer,
) -> None:
    ids = [*tokenizer.encode("a日b"), tokenizer.eos_id]
    assert len(ids) == 6  # the character is three tokens
    (whole,) = scored(TextShape(tokenizer, logprobs=True, token_ids=False), ids, streamed=False)
    assert whole["text_offset"] == [0, 1, 1, 1, 2, 3]
    assert whole["tokens"] == ["a", "bytes:\\xe6", "bytes:\\x97", "bytes:\\xa5", "b", "[e~["]
    chunks = scored(TextShape(tokenizer, logprobs=True, token_ids=False), ids, streamed=True)
    assert [each["text_offset"] for each in chunks] == [[0], [1], [1], [1], [2], [3]]
    tokens = [Token(token_id=each, logprob=-1.0, version=0) for each in (*ids, 299)]
    choice = ChatShape(tokenizer, logprobs=True, token_ids=False).choice(
        0, [Piece(tokens=tokens)], streamed=False
    )
    given = [each["bytes"] for each in choice["logprobs"]["content"]]
    assert [byte for each in given[:5] for byte in each] == list("a日b".encode())
    assert bytes(given[5]) == b"[e~["


def test_a_prompt_that_ends_within_a_character_shares_it_with_no_token(
    tokenizer: Tokenizer,
) -> None:
    prompt, made = tokenizer.encode("a日")[:-1], tokenizer.encode("b")
    tokens = [Token(token_id=each, logprob=-1.0, version=0) for each in made]
    shape = TextShape(tokenizer, logprobs=True, token_ids=False)
    pieces = [Piece(prompt=[(each, None) for each in prompt]), Piece(tokens=tokens)]
    scores = shape.choice(0, pieces, streamed=False)["logprobs"]
    assert scores["text_offset"] == [0, 1, 1, len(tokenizer.decode(prompt))]
    assert scores["token_logprobs"] == [None, None, None, -1.0]


def test_streamed_offsets_grow(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="tiny", prompt="a", max_tokens=8, seed=2, logprobs=1, stream=True
        )
    )
    text, offsets = "", []
    for chunk in chunks:
        text += chunk.choices[0].text
        scores = chunk.choices[0].logprobs
        offsets += (scores.text_offset if scores else None) or []
    assert len(offsets) == 8
    assert offsets == sorted(offsets)
    assert 0 < offsets[-1] <= len(text)


def test_arguments_with_half_a_surrogate_pair_are_an_answer(
    tokenizer: Tokenizer,
) -> None:
    shape = ChatShape(tokenizer, logprobs=False, token_ids=False)
    calls = (ToolCall(name="bash", arguments={"command": "\ud800"}),)
    choice = shape.choice(0, [Piece(calls=calls, finish="tool_calls")], streamed=True)
    for raw in (Answer(choice).body, event(choice).removeprefix(b"data: ")):
        (call,) = json.loads(bytes(raw))["delta"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"command": "?"}


def metric(address: str, name: str) -> float:
    for line in httpx.get(f"{address}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return 0.0


def test_hanging_up_before_the_answer_ends_the_work(address: str) -> None:
    made = metric(address, "rollmill_completion_tokens_total")
    gone = 'rollmill_http_requests_total{path="/v1/completions",status="499"}'
    never = {"3": -100}  # no end of message
    body = {"prompt": ["a"] * 3, "max_tokens": 2000, "logit_bias": never}
    with (
        httpx.Client(timeout=httpx.Timeout(30, read=0.15)) as http,
        pytest.raises(httpx.ReadTimeout),
    ):
        http.post(f"{address}/v1/completions", json=body)
    give_up = time.monotonic() + 60
    while metric(address, gone) == 0 and time.monotonic() < give_up:
        time.sleep(0.02)
    assert metric(address, gone) == 1
    while metric(address, "rollmill_running") and time.monotonic() < give_up:
        time.sleep(0.02)
    assert metric(address, "rollmill_completion_tokens_total") - made < 3 * 2000
