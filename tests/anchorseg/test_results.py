"""results.json keeps what was scored: added to by model and benchmark, resumed, refused for another model."""

import json
import shutil

import pytest

import eval_reasonseg
from anchorseg.evaluation.results import FILE, SCORED, Model, ResultsFile
from anchorseg.weights.folder import save_model
from dataset.drawn.writer import write_scenes
from tests.conftest import make_model
from utils.errors import CheckpointError, DataError, OutputExistsError
from utils.run_lock import run_lock
from utils.settings import to_dict

VAL, TEST = "ReasonSeg|val", "ReasonSeg|test"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, counts={"train": 1, "val": 2, "test": 2}, seed=0)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(*make_model(), folder)
    return folder


@pytest.fixture
def evaluate(scenes, model, tmp_path):
    def call(*flags, benchmarks=VAL, version=model, data=scenes):
        eval_reasonseg.main(
            ["--version", str(version), "--dataset_dir", str(data), "--index_dir", str(tmp_path / "index"),
             "--val_dataset", benchmarks, "--protocol", "forced", "--workers", "0", "--output_dir",
             str(tmp_path / "out"), *flags]
        )  # fmt: skip
        return json.loads((tmp_path / "out" / FILE).read_text())

    return call


@pytest.fixture
def asked(monkeypatch):
    """Names of the benchmarks that a model is asked."""
    from anchorseg.evaluation.evaluator import Evaluator

    names, original = [], Evaluator.evaluate
    monkeypatch.setattr(
        Evaluator, "evaluate", lambda self, source, **how: names.append(how["name"]) or original(self, source, **how)
    )
    return names


def test_another_call_adds_its_benchmarks(evaluate, capsys):
    first = evaluate()
    second = evaluate(benchmarks=TEST)
    assert set(second["benchmarks"]) == {VAL, TEST}
    assert second["benchmarks"][VAL] == first["benchmarks"][VAL]
    assert [run["scored"] for run in second["runs"]] == [[[VAL, "forced"]], [[TEST, "forced"]]]
    assert [run["settings"]["val_dataset"] for run in second["runs"]] == [VAL, TEST]
    assert VAL not in capsys.readouterr().out.rsplit("benchmark", 1)[1]  # the table is of what was asked for


def test_a_score_made_again_takes_the_place_of_the_first(evaluate, asked):
    evaluate()
    again = evaluate("--max_rows", "2")
    assert asked == [VAL, VAL]
    assert [(run["settings"]["max_rows"], run["scored"]) for run in again["runs"]] == [(2, [[VAL, "forced"]])]


def test_resume_evaluates_what_is_missing(evaluate, asked, capsys):
    evaluate()
    content = evaluate("--resume", benchmarks=f"{VAL}||{TEST}")
    assert asked == [VAL, TEST]
    assert set(content["benchmarks"]) == {VAL, TEST}
    assert "1 of 2 scores are in" in capsys.readouterr().out


def test_resume_evaluates_other_data_again(evaluate, asked, scenes, tmp_path):
    evaluate()
    shutil.copytree(scenes, tmp_path / "others")
    evaluate("--resume", data=tmp_path / "others")
    assert asked == [VAL, VAL]


def test_the_file_is_whole_behind_every_benchmark(evaluate, monkeypatch, tmp_path):
    from anchorseg.evaluation.evaluator import Evaluator

    original = Evaluator.evaluate

    def fails_at_the_second(self, source, **how):
        if how["name"] == TEST:
            raise DataError("a.jpg", "gone")
        return original(self, source, **how)

    monkeypatch.setattr(Evaluator, "evaluate", fails_at_the_second)
    with pytest.raises(DataError):
        evaluate(benchmarks=f"{VAL}||{TEST}")
    assert set(json.loads((tmp_path / "out" / FILE).read_text())["benchmarks"]) == {VAL}


def test_another_model_is_refused(evaluate, model, tmp_path):
    evaluate()
    changed, registry = make_model()
    changed.query_bank.positions.data[0, 0] += 1
    other = tmp_path / "other"
    save_model(changed, registry, other)
    with pytest.raises(OutputExistsError, match=r"holds scores of another model, .*; give another --output_dir"):
        evaluate(version=other)
    same = shutil.copytree(model, tmp_path / "same")
    assert evaluate(version=same)["model"]["folder"] == str(same)


@pytest.mark.parametrize(
    "flags", [("--precision", "bf16"), ("--max_new_tokens", "7"), ("--model_max_length", "777")], ids=lambda f: f[0]
)
def test_other_settings_that_scores_depend_on_are_refused(evaluate, flags):
    evaluate()
    with pytest.raises(OutputExistsError, match=rf"scores with {flags[0][2:]} .*pass {flags[0]} .*--output_dir"):
        evaluate(*flags)


DAMAGE = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[1]",
    "an earlier version's": lambda text: json.dumps({"settings": {}, "environment": {}, "benchmarks": {}}),
    "runs of nothing": lambda text: json.dumps({**json.loads(text), "runs": [3]}),
    "an entry of text": lambda text: json.dumps({**json.loads(text), "benchmarks": {"a": {"forced": "b"}}}),
    "a score of text": lambda text: json.dumps(
        {**json.loads(text), "benchmarks": {"a": {"forced": {"giou": "1", "rows": []}}}}
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_refused_and_left_as_it_is(evaluate, tmp_path, kind):
    evaluate()
    path = tmp_path / "out" / FILE
    damaged = DAMAGE[kind](path.read_text())
    path.write_text(damaged)
    with pytest.raises(OutputExistsError, match=r"results.json: .*; move it away, or give another --output_dir"):
        evaluate()
    assert path.read_text() == damaged


def test_a_folder_in_the_place_of_the_file_is_refused(evaluate, tmp_path):
    (tmp_path / "out" / FILE).mkdir(parents=True)
    with pytest.raises(OutputExistsError, match=r"results.json: it is a folder"):
        evaluate()


def test_two_evaluations_do_not_write_into_one_folder(evaluate, tmp_path):
    with (
        run_lock(tmp_path / "out"),
        pytest.raises(OutputExistsError, match=r"is in use by process .*another --output_dir"),
    ):
        evaluate()


def test_a_model_that_is_damaged_is_refused_before_data_are_read(evaluate, model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is no model folder of this project"):
        evaluate(version=broken, data=tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "value"), [("bank_length", "3"), ("muse_matching", "points")])
def test_scores_of_versions_without_a_setting_were_made_with_its_default(tmp_path, name, value):
    settings = to_dict(eval_reasonseg.EvalSettings(version="m"))
    scored_with = {key: settings[key] for key in SCORED if key != name}
    old = {"model": {"folder": "m", "digest": "0"}, "scored_with": scored_with, "runs": [], "benchmarks": {}}
    (tmp_path / FILE).write_text(json.dumps(old))
    ResultsFile(tmp_path, Model("m", "0"), settings)
    with pytest.raises(OutputExistsError, match=rf"holds scores with {name} .*pass --{name} "):
        ResultsFile(tmp_path, Model("m", "0"), {**settings, name: value})


def test_settings_that_scores_do_not_depend_on_may_change(tmp_path):
    settings = to_dict(eval_reasonseg.EvalSettings(version="m"))
    for workers in (1, 2):
        ResultsFile(tmp_path, Model("m", "0"), {**settings, "workers": workers})
