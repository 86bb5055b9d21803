"""docs/extending.md is run as it stands: what it adds can be searched, trained, saved, loaded."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import peft
import pytest
import torch
from safetensors.torch import save
from transformers import AutoConfig, AutoModel

from peftsearch.backbone import families, recognise
from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, load_shapes, wrap
from peftsearch.design import place as places
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.composition import COMPOSITIONS, Dora
from peftsearch.design.configuration import Configuration, Training
from peftsearch.design.form import FORMS, Prefix
from peftsearch.design.insertion import Parallel
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES, Place
from peftsearch.design.validity import why_invalid
from peftsearch.errors import ConfigurationError
from peftsearch.export.native import load, write_native
from peftsearch.policy.table import POLICIES
from peftsearch.space.decode import decode
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space, load_space
from peftsearch.study.create import NewStudy, create_study
from peftsearch.task.kinds.table import KINDS
from peftsearch.task.metrics.table import METRICS
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.workers.events import TrialEnded, TrialEvaluated
from peftsearch.workers.limits import Limits
from support.backbones import backbone_at, padded_batch, perturb, states
from support.exports import package
from support.rounding import apart_in_fp32
from support.standin import create
from support.standin_worker import search_without_training
from support.tiny import sentiment_rows, write_csv

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
TEXTS = ["a good film", "it was bad"]
ROWS = sentiment_rows(60)
SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 2}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [none, linear]}}
"""


@pytest.fixture
def page() -> Iterator[dict[str, Any]]:
    """The names that the page's Python defines; the registries are put back afterwards."""
    order: dict[str, int] = getattr(places, "_ORDER", {})
    registries: tuple[dict[str, Any], ...]
    registries = (FORMS, COMPOSITIONS, PLACES, order, METRICS, KINDS, POLICIES)
    before = [dict(registry) for registry in registries]
    order.setdefault("norm_weights", len(PLACES))  # made of PLACES when it is imported
    module = types.ModuleType("extending")
    sys.modules["extending"] = module  # where dataclasses look for the names of annotations
    try:
        for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(compile(code, "docs/extending.md", "exec"), vars(module))
        yield vars(module)
    finally:
        del sys.modules["extending"]
        for registry, was in zip(registries, before, strict=True):
            registry.clear()
            registry.update(was)


def gradients(backbone: Backbone, configuration: Configuration) -> None:
    """Attached off its beginning, every tuned tensor gets a gradient and nothing else does."""
    batch = padded_batch()
    with attach(backbone, configuration) as attachment:
        perturb(attachment.tensors)
        states(backbone, batch).square().sum().backward()
        for name, parameter in attachment.tensors.items():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
        assert all(p.grad is None for p in backbone.model.parameters() if not p.requires_grad)


# -- the form ----------------------------------------------------------------------------------


def loha(page: dict[str, Any], at: str = "attn.query+value", width: int = 2) -> Configuration:
    form = page["Loha"]()
    training = Training(batch_size=16, head_lr=1e-2, lr=(("loha", 1e-2),))
    return Configuration((Modification(form, Place.parse(at), width=width),), training=training)


def test_the_form_is_counted_as_it_is_attached(page: dict[str, Any], tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    untouched = states(backbone)
    with attach(backbone, loha(page)) as attachment:
        made = sum(p.numel() for p in attachment.tensors.values())
        assert torch.equal(states(backbone), untouched)
    assert made == loha(page).tuned_parameters(backbone.shapes) == 2 * 2 * 4 * 2 * 32
    assert torch.equal(states(backbone), untouched)
    gradients(backbone, loha(page, "attn.heads"))
    gradients(backbone, loha(page, "ffn.hidden"))


def test_the_form_is_refused_under_dora_which_needs_loras_factors(page: dict[str, Any]) -> None:
    reason = why_invalid(page["Loha"](), Place.parse("attn.query"), Parallel(), Dora())
    assert reason is not None
    assert "write the linear form" in reason


def test_the_form_equals_pefts(page: dict[str, Any], tiny_bert: Path) -> None:
    backbone, width = backbone_at(tiny_bert), 3
    config = peft.LoHaConfig(r=width, alpha=width, target_modules=["query", "value"])
    theirs: Any = peft.get_peft_model(AutoModel.from_pretrained(tiny_bert), config)
    theirs.double().eval()
    with torch.no_grad(), attach(backbone, loha(page, width=width)) as attachment:
        perturb(attachment.tensors)
        for name, tensor in attachment.tensors.items():
            _, site, key = name.split("/")
            _, layer, place = site.split(".", 2)
            path = f"encoder.layer.{layer}.attention.self.{place.removeprefix('attn.')}"
            own = {"a_1": "w1_b", "b_1": "w1_a", "a_2": "w2_b", "b_2": "w2_a"}[key]
            module = theirs.get_submodule(f"base_model.model.{path}")
            getattr(module, f"hada_{own}")["default"].copy_(tensor.T)
        mask = padded_batch()["attention_mask"].unsqueeze(-1)
        other = theirs(**padded_batch()).last_hidden_state * mask
        assert (states(backbone) - other).abs().max() <= 1e-12


def test_the_form_trains_and_its_export_loads_to_the_same_logits(
    page: dict[str, Any], tiny_bert: Path, tiny_sentiment_csv: Path, tmp_path: Path
) -> None:
    bench = Workbench.prepare(str(tiny_bert), TaskSpec(train=str(tiny_sentiment_csv)))
    budget = TrainingBudget(max_steps=30, rungs=(1.0,), rung_examples=8)
    configuration = loha(page)
    with TrainingRun(bench.backbone, bench.train, bench.objective, configuration, budget, 0) as run:
        run.train_to(1)
        first = run.evaluate(bench.train).loss
        run.train_to(30)
        assert run.evaluate(bench.train).loss < first - 0.01
        moved = [p for name, p in run.model.parameters.items() if name.endswith("b_2")]
        assert all(p.abs().max() > 0 for p in moved)
        stored = run.model.stored()
        tokens = bench.backbone.tokenizer(TEXTS, return_tensors="pt", padding=True)
        with torch.no_grad():
            logits = run.model(tokens["input_ids"], tokens["attention_mask"])
    write_native(tmp_path, package(bench.backbone, configuration), save(stored))
    assert apart_in_fp32(load(tmp_path).logits(TEXTS), logits) <= 1


@pytest.mark.slow
def test_a_space_file_that_names_the_form_samples_it(page: dict[str, Any]) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shapes = load_shapes("config:bert-base")
    space = Space(Document("loha.yaml", text)).on(shapes)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(200):
        sample = decode(space, study.ask())
        if sample.configuration is None:
            continue
        assert sample.configuration.tuned_pct(shapes) <= (sample.budget_pct or 100)
        again = Configuration.from_json(sample.configuration.to_json())
        assert again == sample.configuration
        for m in sample.configuration.modifications:
            seen.add((m.form.name, str(m.place), m.composition.name))
    assert {place for form, place, _ in seen if form == "loha"} == {
        *("attn.query+value", "attn.heads", "ffn.hidden", "ffn.out")
    }
    assert ("loha", "attn.heads", "sigmoid_gate") in seen


# -- the composition ---------------------------------------------------------------------------


def test_the_composition_joins_any_form_and_at_zero_leaves_the_model(
    page: dict[str, Any], tiny_bert: Path
) -> None:
    backbone, gamma = backbone_at(tiny_bert), page["ChannelScaled"]()
    heads = Modification(Prefix(), Place.parse("attn.heads"), composition=gamma, width=2)
    for one in (heads, page["scaled"]):
        configuration = Configuration((one,))
        gradients(backbone, configuration)
        untouched = states(backbone)
        with attach(backbone, configuration) as attachment, torch.no_grad():
            perturb(attachment.tensors)
            assert (states(backbone) - untouched).abs().max() > 0.01
            for name, tensor in attachment.tensors.items():
                if name.endswith("gamma"):
                    tensor.zero_()
            assert (states(backbone) - untouched).abs().max() <= 1e-12
        again = Configuration.from_json(configuration.to_json())
        assert again.hash == configuration.hash


# -- the place ---------------------------------------------------------------------------------


def test_the_place_tunes_the_norms_weights_and_no_bias(
    page: dict[str, Any], tiny_bert: Path
) -> None:
    backbone, configuration = backbone_at(tiny_bert), Configuration((page["gains"],))
    untouched = states(backbone)
    gradients(backbone, configuration)
    with attach(backbone, configuration) as attachment:
        sites = {name.split("/")[1] for name in attachment.tensors}
    expected = {n for n, p in backbone.model.named_parameters() if n.endswith("LayerNorm.weight")}
    assert sites == expected
    assert torch.equal(states(backbone), untouched)


# -- the metric and the kind of task -----------------------------------------------------------


def test_the_kind_is_searched_by_its_metric(
    page: dict[str, Any], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.metrics import cohen_kappa_score

    monkeypatch.chdir(tmp_path)
    rows = [{"text": row["text"], "stars": str(index % 3)} for index, row in enumerate(ROWS)]
    write_csv(tmp_path / "stars.csv", rows)
    (tmp_path / "space.yaml").write_text(SPACE)
    spec = TaskSpec(train="stars.csv", kind="ratings")
    request = NewStudy("s", load_space("space.yaml"), "space.yaml", str(tiny_bert), spec)
    info = create_study(request, None, "").read_info()
    assert (info.kind, info.metric.name, info.labels) == ("ratings", "kappa", ("0", "1", "2"))
    one = np.arange(60) % 3
    other = np.where(np.arange(60) % 4 == 0, 1, one)
    expected = cohen_kappa_score(one, other, weights="quadratic")
    assert METRICS["kappa"].value(one, other) == pytest.approx(expected)
    assert 0 < METRICS["kappa"].standard_error(one, other) < 1


# -- the policy --------------------------------------------------------------------------------


def test_the_policy_stops_the_worse_half_of_a_search(
    page: dict[str, Any], tiny_bert: Path, tmp_path: Path
) -> None:
    heard: list[Any] = []
    folder = create(tiny_bert, tmp_path, sampler="halving")
    search_without_training(folder, Limits(trials=20), heard.append)
    states = {e.result.number: e.result.state for e in heard if isinstance(e, TrialEnded)}
    seen: list[float] = []
    for event in heard:
        if isinstance(event, TrialEvaluated) and event.value.rung == 0:
            seen.append(event.value.metric)
            better = sorted(seen, reverse=True).index(seen[-1])
            expected = "full" if better < len(seen) / 2 else "stopped"
            assert states[event.number] == expected
    assert {"full", "stopped"} <= set(states.values())


# -- the family --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_family_takes_every_method_that_its_layout_has_room_for(
    page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.for_model(
        "phi",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        vocab_size=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        partial_rotary_factor=0.5,
    )
    with pytest.raises(ConfigurationError, match="not in the table of families"):
        recognise.family_of(config)
    rows = (*families.FAMILIES, page["PHI"])
    monkeypatch.setattr(families, "FAMILIES", rows)
    monkeypatch.setattr(recognise, "FAMILIES", rows)
    torch.manual_seed(0)
    model: Any = AutoModel.from_config(config).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    batch = padded_batch()
    before = model(**batch).last_hidden_state.detach() * batch["attention_mask"].unsqueeze(-1)
    backbone = wrap(model)
    assert torch.equal(states(backbone), before)
    taken = set()
    for name, method in METHODS.items():
        try:
            configuration = method.configuration().within(backbone.shapes)
        except ConfigurationError:
            continue
        with attach(backbone, configuration):
            at_first = states(backbone).detach()
        if all(m.identity_at_init for m in configuration.modifications):
            assert (at_first - before).abs().max() <= 1e-9, name
        else:
            assert (at_first - before).abs().max() > 0, name
        if configuration.modifications and name != "bitfit-all":  # which tunes dead biases too
            gradients(backbone, configuration)
        assert torch.equal(states(backbone), before)
        taken.add(name)
    assert taken == set(METHODS)
