"""The judge: what it is asked, how its faults are survived, and that nothing is asked twice."""

import dataclasses
import http.server
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import training_fixtures
from sweep_files import write_jsonl
from training_fixtures import Tiny

from sweeper import api
from sweeper.benchmarks.judge.prompt import PROMPT_VERSION, judge_messages, parse_rating
from sweeper.benchmarks.judge.questions import Question, load_questions
from sweeper.benchmarks.judge.run import Rated, measured_of, rate
from sweeper.benchmarks.loaded import load_kept
from sweeper.benchmarks.measure import check_benchmarks, measure, measure_trial
from sweeper.benchmarks.run import BenchmarkRequest, benchmark
from sweeper.config.benchmark_models import BenchmarkSection, JudgedBenchmark
from sweeper.errors import ConfigError, StudyMismatchError, SweeperError
from sweeper.items import read_items
from sweeper.reporting.status import status_json

pytest.importorskip("openai", reason="the extra `judge` is not installed")
import openai

from sweeper.benchmarks.judge.ask import Judge

tiny = training_fixtures.tiny
QUESTIONS = tuple(
    Question(id=str(number), category="ab"[number % 2], turns=(f"Q{number}?", f"And {number}?"))
    for number in range(6)
)
ANSWERS = [["short", "a longer answer " * number] for number in range(1, 7)]
Fault = Callable[["Handler", int], bool]


def graded(messages: list[dict[str, str]]) -> str:
    """Grade by the number of lines, as a stand-in for a judge."""
    return f"Fine. Rating: [[{messages[-1]['content'].count('<user>') + 5}]]"


class Handler(http.server.BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint that answers by rule, after the faults it is told to make."""

    def do_POST(self) -> None:
        server: Any = self.server
        self.text = text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with server.lock:
            server.seen[text] += 1
            server.keys.add(self.headers.get("Authorization"))
            count = server.seen[text]
            server.n_now += 1
            server.most_at_once = max(server.most_at_once, server.n_now)
        try:
            if server.fault is None or not server.fault(self, count):
                body = {
                    "choices": [
                        {"message": {"role": "assistant", "content": graded(json.loads(text)["messages"])}}
                    ]
                }
                self.say(200, json.dumps(body))
        finally:
            with server.lock:
                server.n_now -= 1

    def say(self, status: int, text: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.seen: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.fault: Fault | None = None
        self.n_now = self.most_at_once = 0

    @property
    def n_requests(self) -> int:
        return sum(self.seen.values())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is no error here."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def entry(server: Server, **given: Any) -> JudgedBenchmark:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return JudgedBenchmark.model_validate(
        {"questions": "q.jsonl", "base_url": url, "model": "rule", "timeout_s": 5.0, "attempts": 4, **given}
    )


def judge_of(server: Server, cache: Path, **given: Any) -> Judge:
    return Judge(entry(server, **given), cache=cache, is_usable=lambda reply: parse_rating(reply) is not None)


def asked(server: Server, cache: Path, **given: Any) -> list[Rated]:
    return rate(judge_of(server, cache, **given), QUESTIONS, ANSWERS)


def test_every_turn_is_graded_and_a_second_run_asks_nothing(server: Server, tmp_path: Path) -> None:
    first = asked(server, tmp_path)
    assert [one.rating for one in first] == [6.0, 7.0] * 6
    assert server.n_requests == 12
    assert asked(server, tmp_path) == first
    assert server.n_requests == 12, "the second run asked again"


def refuse_at_first(handler: Handler, count: int) -> bool:
    if count == 1:
        handler.say(429, '{"error": {"message": "slow down"}}', Retry_After="0.05")
    return count == 1


def sleep_at_first(handler: Handler, count: int) -> bool:
    if count == 1:
        time.sleep(0.4)
    return False


def say_nonsense(handler: Handler, count: int) -> bool:
    nonsense = {
        1: "{half a",
        2: '{"choices": []}',
        3: '{"choices": [{"message": {"content": "I like it."}}]}',
    }
    if count in nonsense:
        handler.say(200, nonsense[count])
    return count in nonsense


def hang_up_at_first(handler: Handler, count: int) -> bool:
    if count == 1:
        handler.close_connection = True
        handler.connection.close()
    return count == 1


@pytest.mark.parametrize("fault", [refuse_at_first, sleep_at_first, say_nonsense, hang_up_at_first])
def test_429s_time_outs_and_malformed_answers_are_survived(
    fault: Fault, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "openai._base_client.INITIAL_RETRY_DELAY", 0.02
    )  # a test need not wait as an endpoint asks to
    server.fault = fault
    timeout = 0.2 if fault is sleep_at_first else 5.0
    found = asked(server, tmp_path, timeout_s=timeout, concurrency=12)
    assert [one.rating for one in found] == [6.0, 7.0] * 6
    n_tries = {refuse_at_first: 2, sleep_at_first: 2, say_nonsense: 4, hang_up_at_first: 2}[fault]
    assert set(server.seen.values()) == {n_tries}


def refuse_old_words(handler: Handler, count: int) -> bool:
    body = json.loads(handler.text)
    if "max_tokens" in body:
        message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    elif "temperature" in body:
        message = "Unsupported value: 'temperature' does not support 0.0 with this model."
    else:
        return False
    handler.say(400, json.dumps({"error": {"message": message, "code": "unsupported_parameter"}}))
    return True


def test_a_judge_that_reasons_is_told_its_limit_by_the_name_that_it_wants(
    server: Server, tmp_path: Path
) -> None:
    server.fault = refuse_old_words
    with pytest.raises(SweeperError, match=r"status 400 .*'temperature'.* `temperature: null` and"):
        asked(server, tmp_path / "other", concurrency=1)
    server.seen.clear()

    found = asked(server, tmp_path, temperature=None, max_tokens=9000, concurrency=1)

    assert [one.rating for one in found] == [6.0, 7.0] * 6
    bodies = [json.loads(text) for text in server.seen]
    assert ["max_tokens" in body for body in bodies] == [True] + [False] * 12, "the name is learned once"
    assert all(body["max_completion_tokens"] == 9000 for body in bodies[1:])


def test_what_is_left_out_is_not_sent(server: Server, tmp_path: Path) -> None:
    asked(server, tmp_path, temperature=None, max_tokens=None)

    assert all(set(json.loads(text)) == {"model", "messages"} for text in server.seen)


def test_a_reply_that_was_cut_off_is_not_asked_for_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut = {"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "length"}]}
    server.fault = lambda handler, count: handler.say(200, json.dumps(cut)) is None

    found = asked(server, tmp_path)

    assert {one.rating for one in found} == {None}
    assert set(server.seen.values()) == {1}
    assert "cut off at `max_tokens` = 512, before it said what was asked for" in caplog.text
    with pytest.raises(SweeperError, match=r"raise its `max_tokens` \(512\) where it was cut off"):
        measured_of("mt", entry(server), QUESTIONS, found)


def test_the_server_s_own_waiting_time_is_kept(server: Server, tmp_path: Path) -> None:
    times: list[float] = []

    def refuse(handler: Handler, count: int) -> bool:
        times.append(time.monotonic())
        if count == 1:
            handler.say(429, "{}", Retry_After="1")
        return count == 1

    server.fault = refuse
    judge = judge_of(server, tmp_path)
    judge.ask_all([judge_messages(QUESTIONS[0], ANSWERS[0][:1])])
    assert times[1] - times[0] >= 1.0, "without the header it would be tried after half a second"


def test_no_more_requests_than_asked_for_are_on_their_way_at_a_time(server: Server, tmp_path: Path) -> None:
    server.fault = lambda handler, count: bool(time.sleep(0.02))
    asked(server, tmp_path, concurrency=3)
    assert 1 < server.most_at_once <= 3


def test_a_reply_without_a_grade_is_told_and_asked_for_again_by_the_next_run(
    server: Server, tmp_path: Path
) -> None:
    def silent_on_second_turns(handler: Handler, count: int) -> bool:
        text = '{"choices": [{"message": {"content": "No grade."}}]}'
        is_second = (
            max(server.seen, key=lambda key: 0) is not None and list(server.seen)[-1].count("<user>") == 2
        )
        if is_second:
            handler.say(200, text)
        return is_second

    server.fault = silent_on_second_turns
    found = asked(server, tmp_path, attempts=2, concurrency=1)
    assert [one.rating for one in found] == [6.0, None] * 6
    measured = measured_of("mt", entry(server), QUESTIONS, found)
    assert (measured.score.value, measured.score.facts["n_unrated"]) == (6.0, 6)
    before, server.fault = server.n_requests, None
    assert [one.rating for one in asked(server, tmp_path)] == [6.0, 7.0] * 6
    assert server.n_requests == before + 6, "graded answers are in the cache, the others are not"


def test_a_refusal_is_told_with_what_to_check_and_keeps_what_came_before(
    server: Server, tmp_path: Path
) -> None:
    asked(server, tmp_path / "other")
    server.seen.clear()

    def refuse_later(handler: Handler, count: int) -> bool:
        is_late = server.n_requests > 4
        if is_late:
            handler.say(401, '{"error": {"message": "no such key"}}')
        return is_late

    server.fault = refuse_later
    with pytest.raises(
        SweeperError, match=r"refuses with status 401 .* Check `base_url`, `model` and the key"
    ):
        asked(server, tmp_path, concurrency=1)
    assert len(list(tmp_path.glob("*.json"))) == 4
    server.fault = None
    asked(server, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 12


def test_a_refusal_that_repeats_the_key_is_told_without_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "s3cret-key")

    def repeat(handler: Handler, count: int) -> bool:
        handler.say(401, '{"error": {"message": "Incorrect API key provided: s3cret-key"}}')
        return True

    server.fault = repeat
    with pytest.raises(SweeperError, match=r"provided: \*\*\*"):
        asked(server, tmp_path, api_key_env="JUDGE_KEY", concurrency=1)


def test_an_endpoint_that_is_not_there_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    nowhere = entry(server, base_url="http://127.0.0.1:9/v1", attempts=2)
    judge = Judge(nowhere, cache=tmp_path, is_usable=lambda _: True)
    with pytest.raises(SweeperError, match="cannot be reached after 2 attempts"):
        judge.ask_all([judge_messages(QUESTIONS[0], ANSWERS[0])])


def test_ctrl_c_does_not_wait_for_what_is_on_its_way(server: Server, tmp_path: Path) -> None:
    released, untold = threading.Event(), threading.Lock()

    def hold(handler: Handler, count: int) -> bool:
        if untold.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)
        return released.wait(60)

    server.fault = hold
    started = time.monotonic()
    # The processes that tests are shared out to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            judge_of(server, tmp_path, concurrency=2, timeout_s=30.0, attempts=1) as judge,
            pytest.raises(KeyboardInterrupt),
        ):
            rate(judge, QUESTIONS, ANSWERS)
        assert time.monotonic() - started < 10.0
        assert judge._client.is_closed()
        assert server.n_requests <= 2
    finally:
        released.set()
        signal.signal(signal.SIGINT, before)


def test_the_key_comes_from_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "turns": ["a"]}\n')
    judged = entry(server, questions=str(tmp_path / "q.jsonl"), api_key_env="MY_JUDGE_KEY")
    section = BenchmarkSection(judged={"mt": judged})
    with pytest.raises(ConfigError, match="`MY_JUDGE_KEY`, which is not set"):
        check_benchmarks(section)
    monkeypatch.setenv("MY_JUDGE_KEY", "secret-1")
    check_benchmarks(section)
    asked(server, tmp_path, api_key_env="MY_JUDGE_KEY")
    assert server.keys == {"Bearer secret-1"}
    assert not any("secret-1" in path.read_text() for path in tmp_path.rglob("*.json"))


def test_a_damaged_cache_file_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    asked(server, tmp_path)
    next(tmp_path.glob("*.json")).write_text("{half")
    assert [one.rating for one in asked(server, tmp_path)] == [6.0, 7.0] * 6
    assert server.n_requests == 13


def test_prompt_turns_and_length_are_noted() -> None:
    lengths = {("0", 0): 10, ("0", 1): 20, ("1", 0): 30, ("1", 1): 40}
    rated = [
        Rated(question=question, turn=turn, n_characters=n, rating=n / 10)
        for (question, turn), n in lengths.items()
    ]
    any_entry = JudgedBenchmark(questions="q", base_url="http://x", model="rule")
    measured = measured_of("mt", any_entry, QUESTIONS, rated)
    facts = measured.score.facts
    assert (measured.score.value, measured.score.stderr, measured.score.scale) == (
        2.5,
        pytest.approx(1.0),
        10.0,
    )
    assert (facts["prompt_version"], facts["judge"]) == (PROMPT_VERSION, "rule")
    assert "[[7]]" in facts["prompt"]
    assert facts["by_turn"] == {"1": 2.0, "2": 3.0}
    assert facts["by_category"] == {"a": 1.5, "b": 3.5}
    assert facts["verbosity"]["spearman_of_length_and_rating"] == pytest.approx(1.0)
    assert measured.items is not None
    assert dict(zip(measured.items.ids, measured.items.measures["rating"], strict=True)) == {
        "0": 1.5,
        "1": 3.5,
    }


def test_the_judge_sees_earlier_turns_and_the_reference_of_the_last() -> None:
    question = dataclasses.replace(QUESTIONS[0], reference=("first", "second"))
    text = judge_messages(question, ["one", "two"])[-1]["content"]
    assert [text.index(word) for word in ("Q0?", "one", "And 0?", "two", "second")] == sorted(
        text.index(word) for word in ("Q0?", "one", "And 0?", "two", "second")
    )
    assert "first" not in text


def test_bad_questions_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"question_id": 1, "turns": ["a"]}\n{"turns": ["b"]}\n[]\n{"question_id": 1, "turns": ["c"]}\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_questions(path)
    told = str(caught.value)
    assert "q.jsonl:2: " in told
    assert "`question_id` is missing" in told
    assert "q.jsonl:3: " in told
    assert "`question_id` 1 is there twice" in told
    assert [question.id for question in load_questions(path, limit=1)] == ["1"]
    judged = {"mt": JudgedBenchmark(questions=str(path), base_url="http://x", model="rule")}
    with pytest.raises(ConfigError, match=r"q\.jsonl:2: "):
        check_benchmarks(BenchmarkSection(judged=judged))
    path.unlink()
    with pytest.raises(
        ConfigError, match=r"The questions `.*q\.jsonl` cannot be read: .* Correct `questions`"
    ):
        load_questions(path)


@pytest.mark.train
def test_the_finalists_of_a_sweep_are_judged_once_it_ended_and_no_one_twice(
    tiny: Tiny, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 1, "turns": ["Who?"]}) + "\n")

    def keep_a_model(context: Any) -> dict[str, float]:
        context.report(step=1, samples=8, loss=1.0)
        shutil.copytree(tiny.model, Path(context.spec.trial_dir) / "model")
        return {"score": context.params["x"]}

    judged = {"questions": str(tmp_path / "q.jsonl"), "base_url": entry(server).base_url, "model": "rule"}
    sweep = {
        "study": "judged",
        "metric": "score",
        "direction": "maximize",
        "trial": {"function": "nobody:asks", "budget": {"samples": 8}},
        "search_space": {"x": {"grid": [1.0, 2.0, 3.0]}},
        "pruner": "nop",
        "benchmarks": {"judged": {"mt": judged | {"max_new_tokens": 4}}, "when": "finalists", "top": 2},
        "dir": str(tmp_path / "judged"),
        "resources": {"slots": 1, "gpus_per_trial": 0},
    }
    view = api.launch(sweep, options=api.LaunchOptions(executor="in-process"), function=keep_a_model)
    assert [(run.trial, run.score.value) for run in view.benchmarks] == [(1, 6.0), (2, 6.0)]
    assert status_json(view)["best"]["benchmarks"]["score"]["value"] == pytest.approx(0.6)
    assert read_items(view.directory / "trials" / "2")["bench/mt"].measures["rating"] == (6.0,)
    n_before, place = server.n_requests, str(view.directory)
    again = benchmark(place, BenchmarkRequest())
    # Their text, since a standard error that is not known is NaN, which is not equal to itself.
    assert repr(again.benchmarks) == repr(view.benchmarks), "it was measured in the same way"
    again = benchmark(place, BenchmarkRequest(trials=(2,), again=True))
    assert again.benchmarks[1].at >= view.benchmarks[1].at
    assert server.n_requests == n_before, "the replies are in the cache"
    shutil.rmtree(view.directory / "trials" / "0" / "model")
    with pytest.raises(StudyMismatchError, match="Trial 0 of study `judged` kept no model"):
        benchmark(place, BenchmarkRequest(trials=(0,)))


@pytest.mark.train
def test_kept_adapters_are_loaded_on_their_base(tiny: Tiny, tmp_path: Path) -> None:
    import peft
    import torch
    import transformers

    from sweeper.training.model import without_peft_warning

    base = transformers.AutoModelForCausalLM.from_pretrained(tiny.model)
    with without_peft_warning():
        how = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        adapted = peft.get_peft_model(base, how)
    adapted.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(tiny.model).save_pretrained(tmp_path / "model")
    loaded = load_kept(tmp_path / "model", trust_remote_code=False)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        assert torch.allclose(loaded.model(ids).logits, adapted.eval()(ids).logits, atol=1e-5)
        plain = transformers.AutoModelForCausalLM.from_pretrained(tiny.model)(ids).logits
    assert not torch.allclose(loaded.model(ids).logits, plain, atol=1e-3)


@pytest.mark.train
def test_a_model_answers_turn_by_turn_and_is_judged(
    tiny: Tiny, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.benchmarks.judge.answers import answer_questions

    rows = [{"question_id": one.id, "turns": list(one.turns)} for one in QUESTIONS]
    rows[0]["turns"] = ["only one"]
    write_jsonl(tmp_path / "q.jsonl", rows)
    questions = load_questions(tmp_path / "q.jsonl")
    loaded = load_kept(tiny.model, trust_remote_code=False)
    alone = [answer_questions(loaded, [one], max_new_tokens=8, batch_size=1)[0] for one in questions]
    together = answer_questions(loaded, questions, max_new_tokens=8, batch_size=4)
    assert together == alone, "a batch answers as each question does alone"
    assert [len(given) for given in together] == [1, 2, 2, 2, 2, 2]

    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    judged = entry(server, questions=str(tmp_path / "q.jsonl"), max_new_tokens=8)
    clients: list[openai.OpenAI] = []

    class Client(openai.OpenAI):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            clients.append(self)

    monkeypatch.setattr(openai, "OpenAI", Client)
    found = measure(loaded, BenchmarkSection(judged={"mt": judged}), ["mt"])["mt"]
    assert found.score.value == pytest.approx((6.0 + 5 * 6.5) / 6)
    assert [client.is_closed() for client in clients] == [True]
    assert server.n_requests == 11


@pytest.mark.train
def test_a_trial_is_not_lost_with_a_benchmark_that_its_study_does_not_compare(
    tiny: Tiny,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 1, "turns": ["Who?"]}) + "\n")
    loaded = load_kept(tiny.model, trust_remote_code=False)
    judged = entry(server, questions=str(tmp_path / "q.jsonl"), max_new_tokens=4)
    section = BenchmarkSection(judged={"mt": judged}, when="completed")

    def refuse(handler: Handler, count: int) -> bool:
        handler.say(401, '{"error": {"message": "no such key"}}')
        return True

    server.fault = refuse
    assert measure_trial(loaded, section, tmp_path, metric="dev/loss") == {}
    assert server.n_requests == 2, "it is tried once more"
    assert "The trial ends without the benchmark `mt`: The judge `rule` at" in caplog.text
    with pytest.raises(SweeperError, match="refuses with status 401"):
        measure_trial(loaded, section, tmp_path, metric="bench/score")

    server.seen.clear()
    server.fault = lambda handler, count: count == 1 and refuse(handler, count)
    assert measure_trial(loaded, section, tmp_path, metric="bench/mt")["bench/mt"] == 6.0
