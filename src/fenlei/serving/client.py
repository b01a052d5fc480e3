"""A service asked from Python: the calls of a Classifier, over HTTP, with patience for a service that is busy or starting again.

Needs neither torch nor the `serve` extra.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import httpx2

from fenlei.errors import ModelError, RequestError
from fenlei.inference.candidates import each_text, for_all
from fenlei.inference.prediction import Labels, Prediction
from fenlei.text.pairs import Text, check_texts, listed

TRY_AGAIN = frozenset({429, 502, 503, 504})
"""Nothing was wrong with the request: it was too early, or the service was not there."""
TOO_MUCH = frozenset({413, 504})
"""Fewer texts at a time may be answered."""
REFUSED = frozenset({413, 422})
"""The texts or the labels are at fault, and neither the service nor the key."""
TOLD = ("takes_labels", "max_client_batch_size", "max_body_bytes")
"""What /info of a `fenlei serve` tells, and that of others does not."""
NAMES = ("model_id", "served_model_name", "version")
"""Of /info: what the run is called, and by which fenlei it is served."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds between two tries where the service does not say when."""
BODY_SHARE = 0.25
"""Of the bytes that the service takes, for the texts of one request: JSON may write a byte as six."""


class Client:
    """The run behind `url`. Requests are tried again for `patience` seconds where the service is busy or away.

    `api_key` is sent as a bearer token; `connections` requests are under way at a time, each within `timeout` seconds.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout: float = 60.0, patience: float = 120.0, connections: int = 4
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise RequestError(f"{url!r} is no address of a service; write http://HOST:PORT")
        self.url = url.rstrip("/")
        self._patience = patience
        self._connections = connections
        self._timeout = timeout
        self._headers = _bearer(api_key)
        self._described: tuple[str | None, str | None] | None = None  # the run that `describe` told of, and what it answers with

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the run, in its order."""
        named: dict[str, str] = self._info["model_type"]["classifier"]["id2label"]
        return tuple(named[str(at)] for at in range(len(named)))

    @property
    def takes_labels(self) -> bool:
        """Whether it can be asked among other labels than its own."""
        return bool(self._info["takes_labels"])

    def describe(self) -> dict[str, Any]:
        """What the service says of its run, without its names and limits: an answer does not depend on them.

        From then on `predict` refuses the answers of another run that took over, and those of other promises.
        """
        self._described = self._info.get("model_sha"), self._info.get("answers_sha")
        return {name: told for name, told in self._info.items() if name not in NAMES and not name.startswith("max_")}

    def predict(self, texts: Sequence[Text], *, labels: Labels | None = None) -> list[Prediction]:
        """The answer for each text, in their order, whatever their number; see Classifier.predict.

        RequestError where the service refuses the texts or the labels, ModelError where it refuses for another reason, fails, or has not
        answered within `patience`, and once where another run took over since `describe`.
        """
        given = listed(texts)
        check_texts(given, pairs=bool(given) and isinstance(given[0], (tuple, list)))
        among = None if labels is None else each_text(labels, len(given))
        each = None if labels is None or for_all(labels) else among

        def body(part: slice) -> dict[str, Any]:
            told: dict[str, Any] = {"texts": given[part]}
            if among is not None:
                told["labels"] = list(among[0] or ()) if each is None else [one if one is None else list(one) for one in each[part]]
            return told

        with self._open() as http, ThreadPoolExecutor(self._connections) as pool:
            asked = pool.map(lambda part: self._ask(http, body, part), self._parts(given, each))
            return [one for answers in asked for one in answers]

    @cached_property
    def _info(self) -> dict[str, Any]:
        with self._open() as http:
            answer = self._send(http, "GET", "/info")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or any(name not in found for name in TOLD):
            raise ModelError(f"{self.url}/info is not that of `fenlei serve`; give the address of one")
        return found

    def _open(self) -> httpx2.Client:
        return httpx2.Client(headers=self._headers, timeout=self._timeout, limits=httpx2.Limits(max_connections=self._connections))

    def _parts(self, texts: Sequence[Text], each: Sequence[Sequence[str] | None] | None) -> Iterator[slice]:
        """The texts, with `each` one's labels, in requests that the service takes."""
        most_texts, most_bytes = self._info["max_client_batch_size"], BODY_SHARE * self._info["max_body_bytes"]
        most_labels = self._info.get("max_labels", math.inf)  # an older service does not say
        first = size = 0
        lists: set[tuple[str, ...]] = set()
        for at, text in enumerate(texts):
            bytes_of_text = sum(len(part.encode("utf-8", "surrogatepass")) for part in ((text,) if isinstance(text, str) else text))
            own: tuple[str, ...] = () if each is None else tuple(each[at] or ())
            size += bytes_of_text
            lists.add(own)
            if at > first and (at - first >= most_texts or size > most_bytes or sum(map(len, lists)) > most_labels):
                yield slice(first, at)
                first, size, lists = at, bytes_of_text, {own}
        if first < len(texts):
            yield slice(first, len(texts))

    def _ask(self, http: httpx2.Client, body: Callable[[slice], dict[str, Any]], part: slice) -> list[Prediction]:
        """The answers to one part; in halves, where all of it is too much for one request."""
        middle = (part.start + part.stop) // 2
        try:
            answer = self._send(http, "POST", "/v1/classify", body(part), returned=TOO_MUCH if middle > part.start else frozenset())
        except (ModelError, RequestError) as error:
            raise type(error)(f"texts {part.start} to {part.stop - 1}: {error}") from error
        if not answer.is_success:
            return [*self._ask(http, body, slice(part.start, middle)), *self._ask(http, body, slice(middle, part.stop))]
        told = answer.json()
        self._check_same_run(told)
        return [_prediction(one) for one in told["results"]]

    def _check_same_run(self, told: dict[str, Any]) -> None:
        """ModelError where another run than the one described has answered, or with other promises; it is the one to describe then."""
        answered = told.get("version"), told.get("answers_sha")
        pairs = zip(answered, self._described or answered, strict=True)
        if all(None in (one, other) or one == other for one, other in pairs):  # an older service does not say
            return
        self._described = None
        self.__dict__.pop("_info", None)
        raise ModelError(
            f"{self.url}: another run took over, or the same one with other options, and its answers are not mixed with those before; "
            "begin anew, or serve the former run again as it was"
        )

    def _send(
        self, http: httpx2.Client, method: str, path: str, body: Any = None, *, returned: frozenset[int] = frozenset()
    ) -> httpx2.Response:
        """The answer where it is a success, or its status among those `returned`."""
        until = time.monotonic() + self._patience
        wait = FIRST_WAIT
        while True:
            told: float | None = None
            try:
                answer = self._request(http, method, path, body)
            except httpx2.TransportError as error:
                problem = f"{self.url}: not reached ({error or type(error).__name__})"
            else:
                if answer.is_success or answer.status_code in returned:
                    return answer
                problem = f"{self.url}{path} answered {answer.status_code}: {_message(answer)}"
                if answer.status_code in REFUSED:
                    raise RequestError(problem)
                if answer.status_code not in TRY_AGAIN:
                    raise ModelError(problem)
                told = _seconds(answer.headers.get("retry-after"))
            pause = min(LONGEST_WAIT, wait if told is None else max(told, wait)) * random.uniform(0.75, 1.25)
            if time.monotonic() + pause > until:
                raise ModelError(f"{problem}; gave up after {self._patience:g} s")
            time.sleep(pause)
            wait *= 2

    def _request(self, http: httpx2.Client, method: str, path: str, body: Any) -> httpx2.Response:
        """The answer, whatever its status; 504 where there is none in time. RequestError for what cannot be sent."""
        try:
            return http.request(method, self.url + path, json=body)
        except httpx2.ReadTimeout:  # not as if nobody were there: the same again would take as long
            return httpx2.Response(504, json={"error": {"message": f"not answered within {self._timeout:g} s"}})
        except httpx2.LocalProtocolError:  # whose words may hold the key
            raise RequestError(f"{self.url}: cannot be asked, HTTP does not take what is to be sent") from None
        except (httpx2.InvalidURL, UnicodeEncodeError) as error:
            raise RequestError(f"{self.url}: cannot be asked ({error})") from error


def _bearer(key: str | None) -> dict[bytes, bytes]:
    """The header of a key, as the service reads it: the line end of its file is none of it, and without a key there is no header."""
    key = (key or "").strip()
    if any(character < " " or character == "\x7f" for character in key):
        raise RequestError("api_key: holds a line end or another control character; give one key alone")
    return {b"Authorization": b"Bearer " + key.encode("utf-8", "surrogateescape")} if key else {}


def _prediction(answer: dict[str, Any]) -> Prediction:
    lists = {name: answer.get(name) for name in ("prediction_set", "labels")}
    return Prediction(**{**answer, **{name: None if one is None else tuple(one) for name, one in lists.items()}})


def _message(answer: httpx2.Response) -> str:
    try:
        told = answer.json()["error"]
        return str(told["message"] if isinstance(told, dict) else told)
    except (ValueError, KeyError, TypeError):
        return answer.text[:200] or answer.reason_phrase


def _seconds(told: str | None) -> float | None:
    return float(told) if told is not None and told.isdigit() else None
