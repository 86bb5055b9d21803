"""The paper's recipes: their settings, what they recommend, and the numbers they are shown beside.

Parameters of published points are counted here by the formulas of docs/counts.md with the paper's
widths, not by the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.cli.main import run
from peftsearch.design.place import Place
from peftsearch.errors import SpaceError
from peftsearch.policy.seeds import seeds_of
from peftsearch.records.records import PublishedValue
from peftsearch.space.file.document import Document
from peftsearch.space.file.published import Published, PublishedPoint
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.space import Space
from peftsearch.task.kinds.table import kind_named
from peftsearch.task.metrics.table import METRICS
from peftsearch.task.sources.known import known_dataset
from peftsearch.task.spec import TaskSpec
from support.readme import readme_commands
from support.spaces import shipped

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
MODELS = {
    "xsum-bart-large": "config:bart-large",
    "enro-mbart": "config:mbart-large",
    "mnli-roberta-base": "config:roberta-base",
    "sst2-roberta-base": "config:roberta-base",
}
BEFORE = {
    "attention-vs-ffn": "692d859b04c3e705",
    "autopeft": "d08ccf96da496e9d",
    "composition": "9aa1cfd657605efb",
    "demo": "f848b202ed2a3167",
    "lora-only": "646eb2a79aaacd93",
    "mix-and-match": "a6e8440d800850bd",
    "sequential-vs-parallel": "a1f3fe48efd498ae",
    "tiny-budget": "28b7203d857499b6",
    "unified": "8b70bfea6e71dfa4",
}
"""Hashes as studies recorded them before space files had recipes, a depth or a number of
modifications.
"""
LATER_KEYS = ("depth:", "modifications:")


# -- the sections of a file --------------------------------------------------------------------


@pytest.mark.parametrize("name", BEFORE)
def test_a_space_without_a_recipe_keeps_the_hash_of_its_studies(name: str) -> None:
    text = shipped(name).document.text
    lines = [line for line in text.splitlines() if not line.startswith(LATER_KEYS)]
    assert Space(Document(name, "\n".join(lines))).hash == BEFORE[name]


PUBLISHED = "published: {metric: bleu, source: a paper, points: [%s]}\n"
PLAIN = """schema: 1
budgets: {tuned_pct: {log: [0.1, 10]}, epochs: 2}
places: {ffn: {at: out}}
choices: {ffn: {form: relu}}
"""


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ("{tuned_pct: 1, value: 2}", "s.yaml:5: published.points.0: a published point needs a na"),
        ("{method: lorra, tuned_pct: 1, value: 2}", "'lorra' unknown; did you mean 'lora'"),
        ("{method: lora, tuned_pct: 101, value: 2}", r"s.yaml:5: published.points.0.tuned_pct: "),
        ("{method: lora, tuned_pct: 1, value: .nan}", r"published.points.0.value: .*finite"),
        ("{method: lora, tuned_pct: 1, vaule: 2}", "unknown key; did you mean 'value'"),
        (
            "{name: a, tuned_pct: 1, value: 2}, {name: a, tuned_pct: 2, value: 2}",
            "'a' appears twice",
        ),
        ("", "published.points: "),
    ],
)
def test_a_published_point_that_says_nothing_is_refused(points: str, sentence: str) -> None:
    with pytest.raises(SpaceError, match=sentence):
        Space(Document("s.yaml", PLAIN + PUBLISHED % points))


def test_a_study_keeps_what_is_published_with_its_metric_and_source() -> None:
    points = (
        PublishedPoint(method="lora", tuned_pct=1, value=2),
        PublishedPoint(method="lora", name="LoRA r=4", tuned_pct=2, value=3),
    )
    kept = PublishedValue.all_of(Published(metric="bleu", source="a paper", points=points))
    assert [(v.name, v.value, v.tuned_pct) for v in kept] == [("lora", 2, 1), ("LoRA r=4", 3, 2)]
    assert {(v.metric, v.source) for v in kept} == {("bleu", "a paper")}
    assert PublishedValue.all_of(None) == ()


# -- what a recipe recommends ------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_recommended_task_is_one_of_the_known_data_sets_as_it_is_known(name: str) -> None:
    recommended = shipped(name).file.recommended
    assert recommended is not None
    assert recommended.model
    spec = TaskSpec(**recommended.task)
    row = known_dataset(str(spec.name))
    assert row is not None
    assert (spec.name, spec.kind, spec.metric) == (row.name, row.kind, row.metric)
    assert spec.metric in kind_named(str(spec.kind)).metrics


def test_summaries_and_translations_are_written_as_the_paper_writes_them() -> None:
    spoken = {}
    for name in ("xsum-bart-large", "enro-mbart"):
        recommended = shipped(name).file.recommended
        assert recommended is not None
        spec = TaskSpec(**recommended.task)
        g = spec.generation
        lengths = (recommended.max_length, spec.max_target)
        spoken[name] = (lengths, (g.beams, g.min_tokens, g.max_tokens, g.no_repeat_ngram))
        assert spec.languages == (None if name.startswith("xsum") else ("en_XX", "ro_RO"))
    assert spoken["xsum-bart-large"] == ((512, 128), (6, 10, 60, 3))
    assert spoken["enro-mbart"] == ((150, 150), (5, 1, 200, 0))


# -- how it is trained -------------------------------------------------------------------------

FIELDS = (
    "batch_size batch_tokens accumulation label_smoothing max_grad_norm weight_decay warmup"
).split()
SETTINGS: dict[str, tuple[float, ...]] = {
    "xsum-bart-large": (64, 0, 4, 0.1, 0.1, 0.01, 0),
    "enro-mbart": (32, 16384, 4, 0.1, 1, 0.01, 0),  # batch_tokens stands in place of batch_size
    "mnli-roberta-base": (32, 0, 1, 0, 1, 0.1, 0.06),
    "sst2-roberta-base": (32, 0, 1, 0, 1, 0.1, 0.06),
}
"""Table 8 and appendix A.2."""
LENGTHS = {"xsum-bart-large": 100_000, "enro-mbart": 50_000}


@pytest.mark.parametrize("name", MODELS)
def test_every_configuration_is_trained_with_the_papers_settings(name: str) -> None:
    space = shipped(name)
    training = space.nearest_training(("relu",))
    wanted = dict(zip(FIELDS, SETTINGS[name], strict=True)) | {"dropout": 0.1}
    assert {key: getattr(training, key) for key in wanted} == wanted
    fixed = [key for key in wanted if getattr(space.file.train, key).is_fixed]
    assert fixed == list(wanted)
    assert training.schedule == "linear"
    budgets = space.file.budgets
    assert budgets.rungs == (1,)
    assert (budgets.max_steps, budgets.epochs) == (
        (LENGTHS[name], None) if name in LENGTHS else (None, 10)
    )


@pytest.mark.parametrize("name", MODELS)
def test_the_papers_rate_is_within_the_range_of_every_form(name: str) -> None:
    rates = shipped(name).file.train.lr
    paper = 5e-5 if name in LENGTHS else 1e-4
    searched = {form: (values.low, values.high) for form, values in rates.items()}
    assert {"prefix", "linear", "relu", "constant", "dense"} <= set(searched)
    assert [form for form, (low, high) in searched.items() if not low <= paper <= high] == []


@pytest.mark.parametrize("name", ["xsum-bart-large", "enro-mbart"])
def test_encoder_decoder_and_cross_attention_are_modified_alike(name: str) -> None:
    shapes = load_shapes(MODELS[name])
    places = [str(at) for slot in shipped(name).on(shapes).slots for at in slot.at]
    kinds = {frozenset(site.kind for site in Place.parse(at).sites(shapes)) for at in places}
    assert kinds == {frozenset(("enc_self", "dec_self", "cross")), frozenset(("enc", "dec"))}


@pytest.mark.parametrize("name", MODELS)
def test_nothing_that_a_recipe_offers_is_never_valid(name: str) -> None:
    assert [slot.unused() for slot in shipped(name).slots] == [[], []]


WIDTHS = {
    "mam": ("prefix (mlp 800) l=30", "relu r=512 s=4"),
    "scaled-parallel-adapter": ("relu r=512 s=4",),
    "parallel-adapter-ffn": ("relu r=512",),
    "parallel-adapter-attn": ("relu r=200",),
    "prefix-mlp": ("prefix (mlp 800) l=200",),
    "multi-head-pa": ("prefix_relu l=30",),
    "ungated-prefix": ("ungated prefix (mlp 800) l=30",),
    "lora": ("linear r=200 s=2",),
    "lora-ffn": ("linear r=102 s=4",),
    "prefix-lora-ffn": ("prefix (mlp 800) l=30", "linear r=102 s=4"),
    "pa-pa": ("relu r=30", "relu r=512"),
    "pfeiffer": ("relu r=600",),
    "prompt": ("prompt l=256",),
    "bitfit-all": ("constant",),
    "full": ("dense",),
}
GLUE = {
    "mam": ("prefix (mlp 800) l=16", "relu r=16 s=2"),
    "lora": ("linear r=16 s=2",),
    "prefix-mlp": ("prefix (mlp 800) l=32",),
    "pfeiffer": ("relu r=32",),
    "parallel-adapter-ffn": ("relu r=32",),
    "bitfit-all": ("constant",),
    "full": ("dense",),
}
LANDMARKS = {"pfeiffer", "prompt", "bitfit-all", "full"}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_search_begins_with_the_papers_methods_at_its_widths_and_rate(name: str) -> None:
    seeds = seeds_of(shipped(name), load_shapes(MODELS[name]))
    paper = (WIDTHS, 5e-5) if name in LENGTHS else (GLUE, 1e-4)
    for seed in seeds:
        described = [m.describe() for m in seed.configuration.modifications]
        # Where it stands and what it reads is left out: `relu∥ffn.out r=512` → `relu r=512`.
        short = tuple(re.sub(r"[@∥→][^ ]+( \(reads [^)]*\))?", "", text) for text in described)
        assert short == paper[0][seed.method]
        assert (seed.params is None) == (seed.method in LANDMARKS)
        rates = set(dict(seed.configuration.training.lr).values())
        assert rates == {paper[1]} or seed.method in ("full", "prompt")


# -- what is published -------------------------------------------------------------------------

# d, d_ff, attention sub-layers, ffn sub-layers, body, all biases (docs/counts.md).
BACKBONES = {
    "config:bart-large": (1024, 4096, 36, 24, 406_291_456, 333_824),
    "config:mbart-large": (1024, 4096, 36, 24, 610_851_840, 335_872),
    "config:roberta-base": (768, 3072, 12, 12, 124_055_040, 102_144),
}


def counted(label: str, model: str) -> float:
    """Tuned % of a published point by its name, with the widths that it says."""
    d, d_ff, attentions, ffns, body, biases = BACKBONES[model]
    widths = [int(w) for w in re.findall(r"\b[lr]=(\d+)", label)]
    first, last = (widths or [0])[0], (widths or [0])[-1]
    on_attention, on_ffn = 2 * first * d * attentions, 2 * last * d * ffns
    lora_on_ffn = 2 * last * (d + d_ff) * ffns
    parameters = {
        "full": body,
        "bitfit-all": biases,
        "prompt": first * d,
        "prefix": on_attention,
        "ungated prefix": on_attention,
        "multi-head PA": on_attention,
        "PA attn": on_attention,
        "SA attn": on_attention,
        "LoRA attn": 2 * on_attention,
        "LoRA ffn": lora_on_ffn,
        "PA ffn": on_ffn,
        "SA ffn": on_ffn,
        "scaled PA": on_ffn,
        "Pfeiffer": on_ffn,
        "adapter": on_ffn,
        "PA+PA": on_attention + on_ffn,
        "prefix+LoRA": on_attention + lora_on_ffn,
        "MAM": on_attention + on_ffn,
    }
    return 100 * parameters[re.split(r" [lr]=", label)[0]] / body


def points(name: str) -> tuple[PublishedPoint, ...]:
    published = shipped(name).file.published
    assert published is not None
    return published.points


@pytest.mark.parametrize("name", MODELS)
def test_the_tuned_share_of_a_published_point_is_counted_not_copied(name: str) -> None:
    for point in points(name):
        assert point.tuned_pct == pytest.approx(counted(point.label, MODELS[name]), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_published_values_are_on_the_scale_of_the_metric_that_is_searched(name: str) -> None:
    file = shipped(name).file
    assert file.published is not None
    assert file.recommended is not None
    assert file.published.metric == file.recommended.task["metric"]
    metric = METRICS[file.published.metric]
    assert all(0.15 * metric.best <= point.value < metric.best for point in file.published.points)


# -- the page ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_pages_table_is_what_the_file_publishes(name: str) -> None:
    (body,) = re.findall(rf"^### `{name}`\n(.*?)(?=^###? |\Z)", PAGE, re.M | re.S)
    cells = [line[2:-2].split(" | ") for line in body.splitlines() if line.startswith("| ")][1:]
    listed = {label: (float(ours), float(value)) for label, _, ours, value in cells}
    assert listed == {p.label: (p.tuned_pct, p.value) for p in points(name)}


def test_every_recipe_is_named_by_the_page_with_the_command_that_runs_it() -> None:
    begun = {c.words[2] for c in readme_commands(PAGE) if c.words[:2] == ["peftsearch", "search"]}
    assert begun == set(MODELS)
    assert set(MODELS) <= set(shipped_spaces())


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [c for c in readme_commands(PAGE) if c.skip is None],
    ids=lambda command: command.text,
)
def test_a_command_of_the_page_runs_without_a_gpu_or_the_hub(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command.words[1:]) == 0
    printed = capsys.readouterr().out
    assert "distinct structures: 4940" in printed
    assert "full " in printed
