"""The peft format: the code of its model card, run as it stands, gives the searched logits."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.composition import (
    Add,
    Composition,
    Dora,
    Gated,
    RankStabilised,
    Scaled,
    SigmoidGate,
    TanhGate,
)
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.form import Constant, Form, Linear, Prompt, Rescale, Vera
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError, UsageError
from peftsearch.export.peft.write import why_not_peft, write_peft
from peftsearch.training.model import TunedModel
from support.backbones import perturb
from support.exports import package, save_tiny
from support.families import backbone_of, inputs, states, tiny_body
from support.rounding import apart_in_fp32

pytestmark = pytest.mark.internals

PROJECTION = Parallel("projection_input")
WRITTEN = 1e-5
"""Tolerance of logits and states in fp64, relative to the largest: adapters are written in fp32."""
TEXT = "a text"
TEXTS = ("a text", "this film is a good one", "it was bad")


def modification(
    form: Form,
    place: str,
    width: int | tuple[int, ...] | None = None,
    composition: Composition = Add(),
    insertion: Insertion | None = None,
    layers: tuple[int, ...] | None = None,
) -> Modification:
    """Beside its linear layer, wherever that is."""
    reads = PROJECTION if place.endswith("out") and isinstance(form, Linear | Vera) else Parallel()
    where = Place(Place.parse(place).names, layers)
    return Modification(form, where, insertion or reads, composition, width)


def lora(
    place: str,
    composition: Composition = Add(),
    width: int | tuple[int, ...] = 2,
    **more: Any,
) -> Modification:
    return modification(more.pop("form", Linear()), place, width, composition, **more)


def rescale(place: str) -> Modification:
    return modification(Rescale(), place, insertion=Sequential())


def prompt(length: int) -> Modification:
    return modification(Prompt(), "embedding", length, Gated())


BIASES = modification(Constant(), "biases")
EVERY_LINEAR = (
    lora("attn.query+key+value+out", Scaled(2), 3),
    lora("ffn.hidden+gate+out", Scaled(0.5), 5),
)
CARDS = {
    "q+v": (lora("attn.query+value", Scaled(2), 4),),
    "q+v, plain addition": (lora("attn.query+value", width=4),),
    "ffn": (lora("ffn.hidden+out", Scaled(4), 3),),
    "ffn, plain addition, a width a layer": (lora("ffn.hidden+out", width=(1, 6)),),
    "output projection": (lora("attn.out", Scaled(3)),),
    "two ranks and scales": EVERY_LINEAR,
    "a prompt": (prompt(5),),
}
POINTS = CARDS | {
    "two scales beside one layer, where it is fused": (
        lora("attn.query", Scaled(2), 3),
        lora("attn.value", Scaled(0.5), 1, layers=(1,)),
        lora("ffn.hidden", width=2),
    ),
    "one layer": (lora("attn.key", Scaled(3), layers=(1,)),),
    "rank-stabilised": (lora("attn.query+value", RankStabilised(6.0), (2, 5)),),
    "a finished scale": (lora("attn.query+value", Scaled("learned")),),
    "a finished gate": (lora("attn.query", TanhGate(), form=Linear("bert")),),
    "DoRA": (lora("attn.query+value", Dora(2.0), 3),),
    "DoRA, ffn, two scales": (lora("ffn.hidden", Dora(2.0)), lora("ffn.out", Dora(3.0), (1, 4))),
    "PiSSA": (lora("attn.query+value", form=Linear("pissa")),),
    "PiSSA beside LoRA": (lora("attn.query", form=Linear("pissa")), lora("ffn.out", Scaled(2))),
    "(IA)³": METHODS["ia3"].modifications,
    "(IA)³, outputs": (rescale("attn.value+out"), rescale("ffn.out")),
    "norms": METHODS["ln-tuning"].modifications,
    "VeRA": (modification(Vera(), "attn.query+value", 6),),
    "VeRA, a width a layer": (modification(Vera(), "ffn.hidden+out", (3, 6)),),
    "biases": (BIASES,),
    "biases of one layer": (BIASES.on((1,)),),
    "norms of one layer": tuple(m.on((1,)) for m in METHODS["ln-tuning"].modifications),
    "every bias": METHODS["bitfit-all"].modifications,
    "biases beside LoRA": (BIASES, lora("attn.query+value", Scaled(2))),
    "biases beside DoRA": (BIASES, lora("ffn.out", Dora(2.0))),
}
FAMILIES = (
    *("electra", "distilbert", "deberta-v2", "modernbert"),
    *("gpt2", "gpt_neox", "opt", "llama", "qwen3", "gemma2"),
    *("phi3", "falcon", "falcon-40b", "falcon-rw"),
)


def of_card(folder: Path) -> torch.Tensor:
    """The logits that the model card's code computes for `a text`."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(code.replace("this folder", str(folder)), names)
    logits: torch.Tensor = names["logits"]
    return logits


def exported(
    folder: Path,
    backbone: Backbone,
    configuration: Configuration,
    texts: Sequence[str] = (TEXT,),
    moved: bool = True,
) -> torch.Tensor:
    """Writes a perturbed configuration; its logits."""
    tokens = backbone.tokenizer(list(texts), return_tensors="pt", padding=True)
    with torch.no_grad(), TunedModel(backbone, configuration, 2) as model:
        if moved:
            perturb(model.parameters)
        tensors = {name: p.detach().clone() for name, p in model.stored().items()}
        logits = model(tokens["input_ids"], tokens["attention_mask"])
    write_peft(folder, package(backbone, configuration), tensors, backbone)
    return logits


@pytest.mark.parametrize("head", [Head("mean"), Head("first", "trained")], ids=str)
@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_the_cards_code_gives_the_searched_logits(
    family: str, name: str, head: Head, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backbone = load_backbone(str(request.getfixturevalue(family)))
    ours = exported(tmp_path, backbone, Configuration(CARDS[name], head))
    assert apart_in_fp32(of_card(tmp_path), ours) <= 1


def in_peft(model: Path, folder: Path) -> torch.Tensor:
    """Logits of mean pooling by peft itself in fp64, for texts that are padded."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    body = PeftModel.from_pretrained(AutoModel.from_pretrained(model), folder).double().eval()
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    mask = batch["attention_mask"].unsqueeze(-1)
    head = load_file(folder / "head.safetensors")
    with torch.no_grad():
        states = body(**batch).last_hidden_state[:, -mask.shape[1] :]
    pooled = (states * mask).sum(1) / mask.sum(1)
    return pooled @ head["classifier.weight"].double().T + head["classifier.bias"].double()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # peft's, at every norm
@pytest.mark.parametrize("name", ["bert", *FAMILIES])
def test_every_point_that_peft_can_express_gives_the_searched_logits_on_every_family(
    name: str, tiny_bert: Path, tmp_path: Path
) -> None:
    model = save_tiny(name, tmp_path / "model", tiny_bert)
    backbone = load_backbone(str(model), dtype=torch.float64)
    written = set()
    for number, (point, modifications) in enumerate(POINTS.items()):
        configuration = of_family(modifications, backbone)
        if configuration is None or why_not_peft(configuration, backbone.family):
            continue
        folder = tmp_path / str(number)
        ours = exported(folder, backbone, configuration, TEXTS)
        apart = (in_peft(model, folder) - ours).abs().max()
        assert apart <= WRITTEN * max(1.0, float(ours.abs().max())), point
        written.add(point)
    assert set(POINTS) - written == LEFT_OUT.get(name, set())


CROSS = {
    "cross-attention": (
        Modification(Linear(), Place.parse("attn.query+value@cross"), width=3),
        Modification(Linear(), Place.parse("attn.key@dec_self"), composition=Scaled(3), width=2),
    ),
    "(IA)³ of a decoder": (
        Modification(Rescale(), Place.parse("attn.value@cross"), Sequential()),
        Modification(Rescale(), Place.parse("ffn.activated@dec"), Sequential()),
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("name", ["bart", "t5-gated"])
def test_an_encoder_decoders_points_give_the_searched_states_in_both_stacks(
    name: str, tmp_path: Path
) -> None:
    backbone, batch = backbone_of(name), inputs(name)
    written = set()
    for number, (point, modifications) in enumerate((POINTS | CROSS).items()):
        configuration = of_family(modifications, backbone)
        if configuration is None or why_not_peft(configuration, backbone.family):
            continue
        with torch.no_grad(), attach(backbone, configuration) as attachment:
            perturb(attachment.tensors)
            tensors = {f"tuned/{key}": t.clone() for key, t in attachment.stored().items()}
            ours = states(name, backbone, batch)
        folder = tmp_path / str(number)
        write_peft(folder, package(backbone, configuration), tensors, backbone)
        body = copy.deepcopy(tiny_body(name))
        body.set_attn_implementation("sdpa")
        with torch.no_grad():
            loaded = PeftModel.from_pretrained(body, folder).double().eval()
            theirs = loaded(**batch, use_cache=False)
        apart = (theirs.last_hidden_state.flatten(0, 1) - ours).abs().max()
        assert apart <= WRITTEN * max(1.0, float(ours.abs().max())), point
        written.add(point)
    left_out = {"a prompt"} | (NO_BIASES if name != "bart" else set())
    assert set(POINTS | CROSS) - written == left_out | TWO_WIDTHS


TWO_WIDTHS = {
    *("ffn, plain addition, a width a layer", "rank-stabilised"),
    *("DoRA, ffn, two scales", "VeRA, a width a layer"),
}
"""They name two, and an encoder-decoder here has four layers."""
NO_BIASES = {
    *("biases", "biases of one layer", "every bias"),
    *("biases beside LoRA", "biases beside DoRA"),
}
LEFT_OUT = {
    "llama": NO_BIASES,
    "qwen3": NO_BIASES,
    "gemma2": NO_BIASES,
    "gpt2": {"VeRA"},
    "gpt_neox": {"VeRA"},
    "phi3": {"VeRA", "VeRA, a width a layer"} | NO_BIASES,
    **{name: {"VeRA"} for name in ("falcon", "falcon-40b", "falcon-rw")},
    "modernbert": {"VeRA", "VeRA, a width a layer"} | NO_BIASES,
}
"""Places that a family has not, and VeRA on part of a fused layer."""


def of_family(modifications: tuple[Modification, ...], backbone: Backbone) -> Configuration | None:
    """The point on a backbone, None where it has no such place."""
    try:
        return Configuration(modifications).within(backbone.shapes)
    except ConfigurationError:
        return None


@pytest.mark.parametrize("moved", [False, True], ids=["untrained", "moved"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_dora_beside_weights_with_zero_channels_loads_in_peft(
    name: str, moved: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    """peft divides by ‖W + Δ‖: such a channel is given a direction, of magnitude 0. In GPT-2 the
    keys, which nothing tunes, have one in the same fused layer.
    """
    model = save_tiny(name, tmp_path / "model", tiny_bert)
    tensors = load_file(model / "model.safetensors")
    for key, weight in tensors.items():
        if key.endswith(("query.weight", "c_attn.weight")):
            (weight.T if name == "gpt2" else weight)[[3, 7, 35][: 2 + (name == "gpt2")]] = 0
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    backbone = load_backbone(str(model), dtype=torch.float64)
    configuration = Configuration((lora("attn.query+value", Dora(2.0), 3),))
    ours = exported(tmp_path / "out", backbone, configuration, TEXTS, moved)
    apart = (in_peft(model, tmp_path / "out") - ours).abs().max()
    assert apart <= WRITTEN * max(1.0, float(ours.abs().max()))


def test_layers_of_two_digits_are_not_taken_for_one_another(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """peft shortens long lists of modules, and reads rank patterns as regular expressions."""
    tokenizer = load_backbone(str(tiny_bert)).tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "deep")
    tokenizer.save_pretrained(tmp_path / "deep")
    backbone = load_backbone(str(tmp_path / "deep"))
    layers = (0, 1, 4, 10, 11)
    modifications = (
        lora("attn.query+key+value+out", Scaled(2), (1, 2, 3, 1, 5), layers=layers),
        lora("ffn.hidden+out", Scaled(0.5), (4, 3, 2, 1, 1), layers=layers),
    )
    ours = exported(tmp_path / "out", backbone, Configuration(modifications))
    assert apart_in_fp32(of_card(tmp_path / "out"), ours) <= 1


def test_ranks_scales_and_shapes_are_written_as_peft_reads_them(
    tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_bert))
    exported(tmp_path, backbone, Configuration(EVERY_LINEAR))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(config["target_modules"]) == 12
    for module in config["target_modules"]:
        a = tensors[f"base_model.model.{module}.lora_A.weight"]
        b = tensors[f"base_model.model.{module}.lora_B.weight"]
        linear = backbone.model.get_submodule(module)
        is_ffn = "intermediate" in module or "attention" not in module
        rank = 5 if is_ffn else 3
        assert a.shape == (rank, linear.in_features)
        assert b.shape == (linear.out_features, rank)
        assert config["rank_pattern"].get(module, config["r"]) == rank
        # One scale for all: what is not written in a pattern is read as alpha / r of the first.
        assert config["alpha_pattern"].get(module, config["lora_alpha"]) == 2.0 * rank
    assert len(tensors) == 24


@pytest.mark.parametrize(
    ("modifications", "reason"),
    [
        ((lora("attn.heads"),), "is not parallel to a single linear layer"),
        (
            (lora("ffn.out", insertion=Parallel()),),
            "is not parallel to a single linear layer",
        ),
        (
            (lora("ffn.out", insertion=Sequential()),),
            "is not parallel to a single linear layer",
        ),
        ((lora("attn.query", form=Linear(bias=True)),), "has biases, LoRA has none"),
        ((lora("attn.query", SigmoidGate()),), "has gates that depend on the token"),
        (METHODS["houlsby"].modifications, "is not LoRA (peft has no such form to load it into)"),
        (METHODS["compacter"].modifications, "is not LoRA"),
        (METHODS["loreft"].modifications, "is not LoRA"),
        (METHODS["diff-pruning"].modifications, "is not LoRA"),
        (METHODS["multi-head-pa"].modifications, "without the exact gate"),
        (METHODS["ungated-prefix"].modifications, "without the exact gate"),
        (METHODS["prefix"].modifications, "tokens at their own positions"),
        (METHODS["prefix-mlp"].modifications, "tokens at their own positions"),
        (METHODS["mam"].modifications, "tokens at their own positions"),
        (METHODS["full"].modifications, "a checkpoint, not an adapter"),
        (METHODS["added-biases"].modifications, "adds biases that the model has none of"),
        (METHODS["bitfit-norm"].modifications, "tunes biases and norms"),
        ((lora("attn.query"), rescale("ffn.out")), "peft holds one type per adapter"),
        ((prompt(3), BIASES), "peft holds one type per adapter"),
        ((lora("attn.query"), lora("ffn.out", Dora())), "peft has one switch for all"),
        ((rescale("ffn.activated+out"),), "before and after one linear layer"),
        (
            (modification(Vera(), "attn.query", 3), modification(Vera(), "ffn.out", 3)),
            "separate random matrices",
        ),
        ((), "it tunes no layer, only the head"),
    ],
)
def test_what_peft_cannot_express_says_why_and_writes_nothing(
    modifications: tuple[Modification, ...], reason: str, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone, configuration = load_backbone(str(tiny_bert)), Configuration(modifications)
    assert reason in str(why_not_peft(configuration, backbone.family))
    with pytest.raises(UsageError, match=rf"{re.escape(reason)}.*use --to native"):
        write_peft(tmp_path / "out", package(backbone, configuration), {}, backbone)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_an_encoder_decoders_prompts_and_prefixes_are_refused(name: str, family: str) -> None:
    configuration, of = METHODS[name].configuration(), backbone_of(family).family
    forms = {m.form.name for m in configuration.modifications}
    reason = why_not_peft(configuration, of)
    if "prompt" in forms:
        assert "needs a whole language model" in str(reason)
    elif forms & {"prefix", "prefix_relu"}:
        assert "no way to give an encoder-decoder" in str(reason) or len(forms) > 1
        assert reason is not None
    else:
        assert reason == why_not_peft(configuration, backbone_of("bert").family)
