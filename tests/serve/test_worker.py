"""The worker: many requests at once, each with the bytes that it gets alone; a queue, ends before the end, and failures."""

import asyncio
import gc
import time
import weakref
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import pytest
import torch

from lib.api import Model
from lib.errors import MakegptError
from lib.generate.request import Request, complete, make_requests
from lib.run.folder import TrainedModel
from lib.serve.errors import ApiError
from lib.serve.generation import Event, Generation
from lib.serve.limits import Limits
from lib.serve.metrics import Metrics
from lib.serve.models import ServedModel
from lib.serve.worker import Busy, Worker
from tests.generate.test_engine import BYTES, CPU, WARM, config_of, random_model

PROMPTS = ["to be", "a", "or not to be, that is", "whether 'tis nobler", "x" * 60, "to be"]


def served(name: str = "small", weights: str = "float32", *, damaged: bool = False) -> ServedModel:
    """A model with random weights, one of them nan if it is `damaged`."""
    config = config_of()
    network = random_model(config)
    if damaged:
        with torch.no_grad():
            network.get_parameter("final_norm.scale")[0] = torch.nan
    model = Model(TrainedModel(network, BYTES, config, sha256="0"), CPU, weights, folder=Path(name))
    return ServedModel(name, model, 0, "fp_0", 0)


@pytest.fixture(scope="module", params=["float32", "int8"])
def model(request: pytest.FixtureRequest) -> ServedModel:
    return served(weights=request.param)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(Limits(batch_size=4), Metrics())
    worker.start()
    yield worker
    worker.stop()


def requests_of(model: ServedModel, *prompts: str, tokens: int = 12, seed: int = 1) -> list[Request]:
    encoded = [model.model.encode_prompt(prompt) for prompt in prompts]
    config = replace(WARM, max_new_tokens=tokens, seed=seed)
    return list(make_requests(model.model.tokenizer, encoded, config, explain=True))


async def read(generation: Generation) -> dict[int, list[Event]]:
    """All events, by the index of their text."""
    events = defaultdict(list)
    async for event in generation:
        events[event.index].append(event)
    return events


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(limited())


def test_a_text_has_the_same_bytes_alone_and_under_load(model: ServedModel, worker: Worker) -> None:
    expected = [complete(model.model.network, requests_of(model, prompt, seed=n), CPU)[0] for n, prompt in enumerate(PROMPTS)]

    async def work() -> list[dict[int, list[Event]]]:
        readers = []
        for n, prompt in enumerate(PROMPTS):
            readers.append(asyncio.create_task(read(worker.submit(model, requests_of(model, prompt, seed=n)))))
            await asyncio.sleep(0.002 * n)  # some join while others are running
        return await asyncio.gather(*readers)

    for events, request in zip(run(work), expected, strict=True):
        assert [event.id for event in events[0]] == request.tokens
        assert "".join(event.piece for event in events[0]) == request.text
        if model.model.network.no_kernel is None:  # PyTorch's rows depend on each other in the last bits
            assert [event.score for event in events[0]] == request.token_scores
        assert [event.finish_reason for event in events[0]] == [None] * (len(request.tokens) - 1) + ["length"]


def test_the_texts_of_one_request_may_be_more_than_a_batch(worker: Worker) -> None:
    model = served()
    events = run(lambda: read(worker.submit(model, requests_of(model, *PROMPTS, *PROMPTS))))
    assert sorted(events) == list(range(12))
    assert all(len(texts) == 12 for texts in events.values())


def test_a_text_that_is_cancelled_ends_within_two_tokens(worker: Worker) -> None:
    model = served()

    async def work() -> tuple[Request, int]:
        (request,) = requests_of(model, "to be", tokens=10_000)
        generation = worker.submit(model, [request])
        async for _ in generation:
            if len(request.tokens) > 3:
                break
        generation.cancel()
        count = len(request.tokens)
        while worker.running:
            await asyncio.sleep(0.001)
        return request, count

    request, count = run(work)
    assert request.finish_reason == "cancelled"
    assert len(request.tokens) <= count + 2


def test_a_request_that_is_cancelled_before_its_turn_is_never_computed(worker: Worker) -> None:
    model = served()

    async def work() -> list[Request]:
        busy = [worker.submit(model, requests_of(model, "to be", tokens=10_000)) for _ in range(4)]
        waiting = requests_of(model, "a", "b")
        generation = worker.submit(model, waiting)
        generation.cancel()
        for other in busy:
            other.cancel()
        assert [event.finish_reason for events in (await read(generation)).values() for event in events] == ["cancelled"] * 2
        return waiting

    assert [request.tokens for request in run(work)] == [[], []]


def test_the_queue_has_a_length_and_a_place_that_is_given_up_is_free() -> None:
    model = served()
    worker = Worker(Limits(queue=2), Metrics())  # not started: nothing leaves the queue

    async def work() -> None:
        first, _ = (worker.submit(model, requests_of(model, "a")) for _ in range(2))
        with pytest.raises(Busy, match="2 requests are waiting") as busy:
            worker.submit(model, requests_of(model, "a"))
        assert busy.value.response().headers["Retry-After"] == "5"
        with pytest.raises(Busy):
            await worker.call(lambda: 1)
        first.cancel()
        worker.submit(model, requests_of(model, "a"))

    run(work)


def test_texts_end_when_the_time_of_their_request_is_over() -> None:
    model = served()
    worker = Worker(Limits(timeout=0.2, batch_size=1), Metrics())
    worker.start()

    async def work() -> list[dict[int, list[Event]]]:
        running, waiting = (worker.submit(model, requests_of(model, "a", tokens=100_000)) for _ in range(2))
        return await asyncio.gather(read(running), read(waiting))

    running, waiting = run(work)
    worker.stop()
    assert running[0][-1].finish_reason == "timeout"
    assert len(running[0]) > 1
    assert waiting[0][-1].finish_reason == "timeout"  # it may get the place for the moment by which it came later
    assert len(waiting[0]) < len(running[0])


def test_a_reader_that_does_not_read_holds_nobody(worker: Worker) -> None:
    model = served()

    async def work() -> None:
        slow = worker.submit(model, requests_of(model, "a", tokens=30))
        await read(worker.submit(model, requests_of(model, "b", tokens=60)))
        assert not worker.running
        assert len((await read(slow))[0]) == 30

    run(work)


def test_requests_take_turns_for_free_places(worker: Worker) -> None:
    model = served()

    async def work() -> None:
        many = worker.submit(model, requests_of(model, *PROMPTS * 8, tokens=40))
        single = worker.submit(model, requests_of(model, "a", tokens=1))
        assert len((await read(single))[0]) == 1
        assert worker.waiting == 1  # texts of the other request
        assert len(await read(many)) == 48

    run(work)


def test_a_call_waits_for_no_place_in_the_batch(worker: Worker) -> None:
    model = served()

    async def work() -> None:
        texts = worker.submit(model, requests_of(model, *PROMPTS * 2, tokens=100_000))
        assert await worker.call(lambda: 1) == 1
        texts.cancel()

    run(work)


def test_many_items_are_computed_some_at_a_time(worker: Worker) -> None:
    model = served()

    async def work() -> None:
        (request,) = requests_of(model, "a", tokens=100_000)
        texts = worker.submit(model, [request])

        def items() -> Iterator[int]:
            for n in range(7):
                lengths.append(len(request.tokens))
                yield n

        assert await worker.collect(items(), 3) == list(range(7))
        assert lengths[0] == lengths[2] < lengths[3] == lengths[5] < lengths[6]
        texts.cancel()

    lengths: list[int] = []
    run(work)


def test_a_request_that_was_accepted_is_finished_while_the_server_stops(worker: Worker) -> None:
    model = served()

    def refuse_then_count() -> Iterator[int]:
        yield 0
        worker.refuse()
        yield from range(1, 5)

    async def work() -> None:
        assert await worker.collect(refuse_then_count(), 1) == list(range(5))
        assert len((await read(worker.submit(model, requests_of(model, "a"), accepted=True)))[0]) == 12

    run(work)


def test_a_call_whose_reader_has_left_is_not_made() -> None:
    worker = Worker(Limits(), Metrics())
    calls: list[int] = []

    async def work() -> None:
        abandoned = asyncio.create_task(worker.call(lambda: calls.append(1)))
        await asyncio.sleep(0)
        assert worker.waiting == 1
        abandoned.cancel()
        await asyncio.sleep(0)
        assert worker.waiting == 0
        worker.start()
        await worker.call(lambda: calls.append(2))

    run(work)
    worker.stop()
    assert calls == [2]


@pytest.mark.parametrize("limits", [Limits(timeout=0.1), Limits()], ids=["out of time", "the server stops"])
def test_a_call_that_waits_too_long_is_refused(limits: Limits) -> None:
    worker = Worker(limits, Metrics())

    async def work() -> None:
        call = asyncio.create_task(worker.call(lambda: 1))
        await asyncio.sleep(0.2)
        if limits.timeout > 1:
            worker.cancel_all()
        worker.start()
        with pytest.raises(Busy):
            await call

    run(work)
    worker.stop()


def test_a_text_ends_at_a_long_context_and_slides_in_a_short_one(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    model = served()
    assert len(run(lambda: read(worker.submit(model, requests_of(model, "to be", tokens=40))))[0]) == 40
    monkeypatch.setattr("lib.serve.worker.LONGEST_WINDOW", 10)
    events = run(lambda: read(worker.submit(model, requests_of(model, "to be", tokens=40))))[0]
    assert len(events) == 24 - 5 + 1  # the token after a full context is the last
    assert events[-1].finish_reason == "length"


def test_caches_of_texts_that_have_ended_are_freed(worker: Worker) -> None:
    model = served()
    caches = []
    cache = model.model.network.cache

    def noted(*arguments: Any) -> Any:
        caches.append(weakref.ref(result := cache(*arguments)))
        return result

    async def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.model.network, "cache", noted)
            await read(worker.submit(model, requests_of(model, "to be", "a")))
        await worker.call(gc.collect)  # a turn later
        assert len(caches) == 2
        assert [reference() for reference in caches] == [None, None]

    run(work)


def test_a_bug_in_the_worker_fails_what_runs_and_not_what_follows(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    model = served()

    async def work() -> None:
        text = worker.submit(model, requests_of(model, "a", tokens=100_000))
        with monkeypatch.context() as patch:
            patch.setattr(worker, "_call_next", lambda: 1 / 0)
            with pytest.raises(ApiError, match="its log says why"):
                await read(text)
        assert worker.is_alive
        assert len((await read(worker.submit(model, requests_of(model, "a"))))[0]) == 12

    run(work)


def test_weights_that_give_nan_fail_one_request_and_the_server_continues(worker: Worker) -> None:
    good, bad = served("good"), served("bad", damaged=True)

    async def work() -> None:
        other = asyncio.create_task(read(worker.submit(good, requests_of(good, "a", tokens=200))))
        with pytest.raises(ApiError, match="logits are not finite") as failure:
            await read(worker.submit(bad, requests_of(bad, "a", "b")))
        assert failure.value.status == 500
        assert len((await other)[0]) == 200
        assert len((await read(worker.submit(good, requests_of(good, "a"))))[0]) == 12

    run(work)


def test_an_exception_in_a_step_says_nothing_about_this_machine(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    model = served()

    def broken(*_: Any) -> None:
        raise RuntimeError("/home/me/secret is not a file")

    async def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(model.model.network, "next_token_logits", broken)
            with pytest.raises(ApiError) as failure:
                await read(worker.submit(model, requests_of(model, "a")))
        assert failure.value.status == 500
        assert "secret" not in str(failure.value)
        assert len((await read(worker.submit(model, requests_of(model, "a"))))[0]) == 12

    run(work)


def test_calls_take_their_turn_between_steps_and_return_errors(worker: Worker) -> None:
    model = served()

    def fail() -> None:
        raise MakegptError("no")

    async def work() -> None:
        text = worker.submit(model, requests_of(model, "a", tokens=10_000))
        assert await worker.call(lambda: 41 + 1) == 42
        assert worker.running == 1
        with pytest.raises(MakegptError, match="no"):
            await worker.call(fail)
        text.cancel()

    run(work)


def test_a_worker_that_is_stopping_finishes_what_it_has_and_takes_no_more(worker: Worker) -> None:
    model = served()

    async def work() -> None:
        running = [worker.submit(model, requests_of(model, "a", tokens=40)) for _ in range(6)]
        worker.refuse()
        with pytest.raises(Busy, match="stopping"):
            worker.submit(model, requests_of(model, "a"))
        assert [len((await read(generation))[0]) for generation in running] == [40] * 6

    run(work)


def test_all_can_be_cancelled(worker: Worker) -> None:
    model = served()

    async def work() -> None:
        generations = [worker.submit(model, requests_of(model, "a", tokens=100_000)) for _ in range(6)]
        readers = [asyncio.create_task(read(generation)) for generation in generations]
        while worker.running < 4:
            await asyncio.sleep(0.001)
        start = time.monotonic()
        worker.cancel_all()
        assert {(await reader)[0][-1].finish_reason for reader in readers} == {"cancelled"}
        assert time.monotonic() - start < 5

    run(work)


def test_tokens_and_times_are_counted() -> None:
    model, metrics = served(), Metrics()
    worker = Worker(Limits(), metrics)
    worker.start()
    run(lambda: read(worker.submit(model, requests_of(model, "to be", "a"))))
    worker.stop()
    assert (metrics.prompt_tokens, metrics.generated_tokens) == (6, 24)
    text = metrics.text(waiting=3, running=2)
    assert "makegpt_generated_tokens_total 24\n" in text
    assert "makegpt_first_token_seconds_count 1\n" in text
    assert "makegpt_requests_waiting 3\n" in text
