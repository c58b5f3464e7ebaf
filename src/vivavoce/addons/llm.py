"""Questions to a language model, behind any endpoint that speaks OpenAI's chat completions.

A question is two messages. The system's is a prompt from `prompts/` with the schema of the answer; it is the same
whatever was said. The user's is one JSON object with everything that comes from clients and callers: there a caller's
"ignore your instructions" is a string among others, and the quotes of JSON keep it in its place. What the model makes
of it all the same is bounded by what is done with an answer: it has to be JSON of the schema, its asker checks it
against what was said, and nothing but text and labels is taken from it.

An endpoint is asked for JSON of the schema (`response_format`); one that does not know that is asked without. An answer
of another form is sent back once. Everything that goes wrong becomes an `AddonError` that quotes neither what was said,
nor the endpoint, nor the key.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any, TypeVar

import stamina
from pydantic import BaseModel, ConfigDict, ValidationError

from vivavoce.errors import AddonError
from vivavoce.plugins import LlmEndpoint

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

MAX_ANSWER_BYTES = 1 << 20
"""Longest body of an answer that is read."""

LONGEST_PAUSE_S = 8.0
"""Longest wait before a question is asked again, also where the endpoint asks for more."""

_FORM_KEPT = 4_000  # letters of a wrong answer that are sent back with the request to mend it
_MOST_BRACES = 50  # places where the object is looked for
_SERVER_FAULT = 500
_TIMEOUT, _CONFLICT, _BUSY = 408, 409, 429

_REASONS = {
    401: "the language model endpoint refuses this server's key",
    403: "the language model endpoint refuses this server's key",
    404: "the language model endpoint does not know the model or the address that this server asks for",
    413: "the text is too long for the language model",
    429: "the language model endpoint takes no more questions now",
}
_TOO_LATE = "the language model did not answer in time"
_BAD_FORM = "the language model's answer did not have the form that it was asked for"


class Answer(BaseModel):
    """What the model answers; subclasses name the fields. Fields of no use are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Form = TypeVar("Form", bound=Answer)


class _Passing(AddonError):
    """A failure that may be over in a moment; `wait_s` is the pause that the endpoint asks for."""

    wait_s: float | None = None


class _Unknown(AddonError):
    """The endpoint refuses the request's form."""


class Turns:
    """So many questions at once, live ones first; others have half of the turns at most, or the only one."""

    def __init__(self, most: int) -> None:
        self._free, self._aside = most, max(most // 2, 1)
        self._live_waiting = 0
        self._changed = Condition()

    @contextmanager
    def take(self, deadline: float, *, live: bool) -> Iterator[None]:
        """Wait for a turn and hold it for the block; raises `AddonError` where none comes before the deadline."""
        with self._changed:
            self._live_waiting += live
            is_ours = self._changed.wait_for(lambda: self._may(live=live), max(deadline - time.monotonic(), 0))
            self._live_waiting -= live
            self._changed.notify_all()
            if not is_ours:
                raise AddonError(_REASONS[_BUSY])
            self._free -= 1
            self._aside -= not live
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._aside += not live
                self._changed.notify_all()

    def _may(self, *, live: bool) -> bool:
        return self._free > 0 and (live or (self._aside > 0 and not self._live_waiting))


class Llm:
    """A client of one endpoint, for any number of threads; made by `connect`."""

    def __init__(self, endpoint: LlmEndpoint) -> None:
        import openai  # noqa: PLC0415 - takes a second and 45 MB, which servers without an endpoint are spared

        # At its debug level, which an environment variable sets, the library logs what it sends.
        logging.getLogger("openai").setLevel(logging.WARNING)
        self.concurrency, self.aside = endpoint.concurrency, max(endpoint.concurrency // 2, 1)
        self._endpoint = endpoint
        self._turns = Turns(endpoint.concurrency)
        self._has_schemas = True
        # What is said goes to the address that the operator chose and to no other: redirects are not followed.
        self._client = openai.OpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key.get_secret_value() or "none",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def ask(
        self,
        prompt: str,
        given: Mapping[str, Any],
        form: type[Form],
        *,
        fits: Callable[[Form], bool] = lambda _: True,
        within_s: float | None = None,
        live: bool = True,
    ) -> Form:
        """Give the answer to the prompt of that name about what is `given`, which is plain JSON; blocks.

        `fits` says whether an answer of the right form makes sense. The answer comes within the endpoint's time and
        `within_s`, whichever is shorter. What is not `live` lets live questions go first. Raises `AddonError`.
        """
        deadline = time.monotonic() + min(self._endpoint.timeout_s, within_s or self._endpoint.timeout_s)
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": _instructions(prompt, form)},
            {"role": "user", "content": json.dumps(given, ensure_ascii=False).encode(errors="replace").decode()},
        ]
        with self._turns.take(deadline, live=live):
            text = self._complete(messages, form, deadline)
            answer = read_answer(text, form)
            if answer is None or not fits(answer):
                messages += [
                    {"role": "assistant", "content": text[:_FORM_KEPT]},
                    {"role": "user", "content": _prompt("again")},
                ]
                answer = read_answer(self._complete(messages, form, deadline), form)
        if answer is None or not fits(answer):
            raise AddonError(_BAD_FORM)
        return answer

    def close(self) -> None:
        """Close the connections, once everybody who connected has closed."""
        with _LOCK:
            _USERS[self._endpoint] -= 1
            if _USERS[self._endpoint]:
                return
            del _USERS[self._endpoint], _CLIENTS[self._endpoint]
        self._client.close()

    def _complete(self, messages: list[ChatCompletionMessageParam], form: type[Answer], deadline: float) -> str:
        """Give the model's text, asked again after passing failures."""
        retries = stamina.retry_context(
            on=_pause,
            attempts=self._endpoint.retries + 1,
            timeout=max(deadline - time.monotonic(), 0.001),
            wait_initial=0.25,
            wait_max=LONGEST_PAUSE_S,
            wait_jitter=0.25,
        )
        for attempt in retries:
            with attempt:
                return self._try(messages, form, deadline)
        raise AssertionError  # the last failure was raised

    def _try(self, messages: list[ChatCompletionMessageParam], form: type[Answer], deadline: float) -> str:
        if not self._has_schemas:
            return self._send(messages, None, deadline)
        try:
            return self._send(messages, form, deadline)
        except _Unknown:
            text = self._send(messages, None, deadline)
        self._has_schemas = False
        return text

    def _send(self, messages: list[ChatCompletionMessageParam], form: type[Answer] | None, deadline: float) -> str:
        """Ask once and give the model's text."""
        import openai  # noqa: PLC0415 - as above

        left = deadline - time.monotonic()
        if left <= 0:
            raise AddonError(_TOO_LATE)
        wanted: Any = openai.omit if form is None else _response_format(form)
        call = self._client.chat.completions.with_streaming_response.create
        try:
            with call(model=self._endpoint.model, messages=messages, response_format=wanted, timeout=left) as answer:
                return _text_of(self._read(answer.status_code, answer.iter_bytes(), deadline))
        except openai.APITimeoutError:
            raise AddonError(_TOO_LATE) from None
        except openai.APIStatusError as error:
            raise _failure(error.status_code, error.response.headers.get("retry-after")) from None
        except openai.APIConnectionError:
            raise _Passing("the language model endpoint cannot be reached") from None
        except AddonError:
            raise
        except Exception as error:  # noqa: BLE001 - where a body breaks off, the library's own library raises
            late = "timeout" in type(error).__name__.lower()
            raise AddonError(_TOO_LATE) if late else _Passing("the language model's answer broke off") from None

    def _read(self, status: int, pieces: Iterator[bytes], deadline: float) -> bytes:
        if status // 100 != 2:  # noqa: PLR2004 - the class of good answers
            raise _failure(status, None)
        body = bytearray()
        for piece in pieces:
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise AddonError("the language model's answer is too long")
            if time.monotonic() > deadline:
                raise AddonError(_TOO_LATE)
        return bytes(body)


_LOCK = Lock()
_CLIENTS: dict[LlmEndpoint, Llm] = {}
_USERS: dict[LlmEndpoint, int] = {}


def connect(endpoint: LlmEndpoint) -> Llm:
    """Give the client of an endpoint, the same to everybody, so that its bound on questions holds for all add-ons."""
    with _LOCK:
        if endpoint not in _CLIENTS:
            _CLIENTS[endpoint] = Llm(endpoint)
        _USERS[endpoint] = _USERS.get(endpoint, 0) + 1
        return _CLIENTS[endpoint]


def read_answer(text: str, form: type[Form]) -> Form | None:
    """Give the object in a model's text, past what it thought aloud and said around it; None without a right one.

    Of several right ones the last one counts: models quote and draft before they answer.
    """
    rest = text.rpartition("</think>")[2]
    answer, past = None, 0
    for _ in range(_MOST_BRACES):
        if (brace := rest.find("{", past)) < 0:
            break
        past = brace + 1
        with suppress(ValueError, RecursionError):
            found, end = json.JSONDecoder().raw_decode(rest, brace)
            answer = form.model_validate_json(json.dumps(found))
            past = end
    return answer


class _Message(Answer):
    content: str | None = None
    refusal: str | None = None


class _Choice(Answer):
    message: _Message
    finish_reason: str | None = None


class _Completion(Answer):
    """As much of a chat completion as is needed: small servers leave out the rest."""

    choices: tuple[_Choice, ...]


def _text_of(body: bytes) -> str:
    """Give the text in the body of a chat completion."""
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError:
        raise AddonError("the language model endpoint's answers are not those of a chat completions endpoint") from None
    if not completion.choices:
        raise AddonError("the language model gave no answer")
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise AddonError("the language model refused to answer")
    if choice.finish_reason == "length":
        raise AddonError("the language model's answer was cut off at its longest length")
    return choice.message.content or ""


def _failure(status: int, retry_after: str | None) -> AddonError:
    """Give the error that a status stands for."""
    reason = _REASONS.get(status, f"the language model endpoint answered {status}")
    if status in {400, 422}:
        return _Unknown(reason)
    if status >= _SERVER_FAULT or status in {_TIMEOUT, _CONFLICT, _BUSY}:
        passing = _Passing(reason)
        if retry_after and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", retry_after):
            passing.wait_s = min(float(retry_after), LONGEST_PAUSE_S)
        return passing
    return AddonError(reason)


def _pause(error: Exception) -> bool | float:
    """Say whether to ask again, and after how long where the endpoint says."""
    if not isinstance(error, _Passing):
        return False
    return True if error.wait_s is None else error.wait_s


@cache
def _prompt(name: str) -> str:
    return (files("vivavoce.addons") / "prompts" / f"{name}.md").read_text(encoding="utf-8").strip()


@cache
def _instructions(name: str, form: type[Answer]) -> str:
    schema = json.dumps(form.model_json_schema(), ensure_ascii=False)
    return f"{_prompt(name)}\n\n{_prompt('form')}\n\n{schema}"


@cache
def _response_format(form: type[Answer]) -> dict[str, Any]:
    schema = form.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object":
            part["additionalProperties"] = False
    return {"type": "json_schema", "json_schema": {"name": form.__name__, "strict": True, "schema": schema}}
