"""What a server counts, and /metrics: the counts in the text format of Prometheus."""

from bisect import bisect_left
from collections import Counter
from typing import Iterator

#: Upper bounds of the buckets, in seconds.
_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Histogram:
    """Durations in seconds, counted in buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        """The samples of the histogram `name`; each bucket counts all durations up to its bound."""
        total = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._sum}"
        yield f"{name}_count {total}"


class Metrics:
    """What happened since the server started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and HTTP status
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.seconds = Histogram()  # from the first byte of a request to the last of its answer
        self.first_token = Histogram()  # seconds from a request to its first new token

    def text(self, *, waiting: int, running: int) -> str:
        """All metrics, with the requests that are `waiting` and the texts that are `running` now."""
        return "\n".join(self._lines(waiting, running)) + "\n"

    def _lines(self, waiting: int, running: int) -> Iterator[str]:
        yield from _head("makegpt_requests_total", "counter", "Requests that were answered.")
        for (route, status), count in sorted(self.requests.items()):
            yield f'makegpt_requests_total{{route="{route}",status="{status}"}} {count}'
        for name, kind, about, value in (
            ("makegpt_prompt_tokens_total", "counter", "Prompt tokens of texts that were continued.", self.prompt_tokens),
            ("makegpt_generated_tokens_total", "counter", "New tokens.", self.generated_tokens),
            ("makegpt_requests_waiting", "gauge", "Requests in the queue.", waiting),
            ("makegpt_texts_running", "gauge", "Texts that are being continued.", running),
        ):
            yield from _head(name, kind, about)
            yield f"{name} {value}"
        for name, about, histogram in (
            ("makegpt_request_seconds", "Seconds from a request to the end of its answer.", self.seconds),
            ("makegpt_first_token_seconds", "Seconds from a request to its first new token.", self.first_token),
        ):
            yield from _head(name, "histogram", about)
            yield from histogram.lines(name)


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
