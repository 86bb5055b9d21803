"""Equality with peft 0.21, given the same parameters, on encoders, decoders and both together.

In fp64, where a difference of 1e-12 is one of meaning: two ways to compute the same are summed in
different orders, and those differ from processor to processor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from peft import get_peft_model
from torch import Generator, Tensor

from peftsearch.backbone.attach.attach import Attachment, attach
from peftsearch.backbone.loading.load import Backbone, wrap
from peftsearch.design.composition import (
    Add,
    Composition,
    Dora,
    RankStabilised,
    Scaled,
)
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Linear, Vera
from peftsearch.design.insertion import Parallel
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.stock import backbone, batch, module_path, outputs, twin

pytestmark = pytest.mark.internals

TOLERANCE = 1e-12
"""Of states in fp64, relative to the largest."""
SINGLE = 1e-5
"""Of weights that peft computes in fp32 always, relative to the largest: rounding, over the gap
between singular values.
"""
SEPARATE = ("bert", "llama", "bart", "t5")
"""Models whose projections are linear layers of their own; GPT-2's are fused."""

SiteTensors = dict[str, dict[str, Tensor]]
"""Site → name → tensor."""


def by_site(attachment: Attachment) -> SiteTensors:
    sites: SiteTensors = {}
    for name, tensor in attachment.tensors.items():
        _, site, key = name.split("/")
        sites.setdefault(site, {})[key] = tensor.detach()
    return sites


def compare(
    name: str,
    configuration: Configuration,
    theirs: Callable[[SiteTensors], Any],
    moved: float = 1.0,
    ours: Backbone | None = None,
) -> None:
    """Our output with a configuration attached equals that of the model `theirs` makes.

    `moved`: how far every tuned tensor is taken from its beginning.
    """
    ours = ours or backbone(name)
    untouched = outputs(ours.model, batch(name))
    with attach(ours, configuration) as attachment:
        began = {n: t.detach().clone() for n, t in attachment.tensors.items()}
        perturb(attachment.tensors)
        for tensor_name, tensor in attachment.tensors.items():
            tensor.data.lerp_(began[tensor_name], 1 - moved)
        tuned = outputs(ours.model, batch(name))
        other = theirs(by_site(attachment)).eval()
    expected = outputs(other, batch(name))
    assert (tuned - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1)
    assert not moved or (tuned - untouched).abs().max() > 0.01


def in_peft(name: str, config: Any, model: Any = None) -> Any:
    """peft's model around the stock one, all of it in fp64 before any tensor is given to it."""
    return get_peft_model(model or twin(name), config).double()


def module(theirs: Any, name: str, site: str) -> Any:
    return theirs.get_submodule(f"base_model.model.{module_path(name, site)}")


# -- LoRA and its relatives --------------------------------------------------------------------


def as_lora(name: str, sites: SiteTensors, s: float, **options: Any) -> Any:
    """peft's LoRA with our tensors."""
    rank = max(t["down"].shape[1] for t in sites.values())
    options = {"r": rank, "lora_alpha": s * rank} | options
    targets = [module_path(name, site) for site in sites]
    theirs = in_peft(name, peft.LoraConfig(target_modules=targets, **options))
    with torch.no_grad():
        for site, tensors in sites.items():
            layer = module(theirs, name, site)
            layer.lora_A["default"].weight.copy_(tensors["down"].T)
            layer.lora_B["default"].weight.copy_(tensors["up"].T)
            if "m" in tensors:
                layer.lora_magnitude_vector["default"].weight.copy_(tensors["m"])
    return theirs


def low_rank(
    place: str, composition: Composition, width: int | tuple[int, ...] = 3, init: Any = "lora"
) -> Configuration:
    at_output = any(part.endswith("out") for part in place.partition("@")[0].split("+"))
    reads = Parallel("projection_input") if at_output else Parallel()
    return Configuration(
        (Modification(Linear(init), Place.parse(place), reads, composition, width),)
    )


PLACES = [
    *((name, "attn.query+value") for name in SEPARATE),
    *((name, "ffn.hidden+out") for name in SEPARATE),
    *((name, "attn.query+key+value+out") for name in SEPARATE),
    ("llama", "ffn.hidden+gate+out"),
    ("bart", "attn.query+value@cross"),
    ("t5", "attn.key+value@cross"),
    ("t5", "attn.query+out@enc_self+dec_self"),
    ("bart", "ffn.hidden+out@dec"),
]


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_lora_equals_pefts(name: str, place: str) -> None:
    compare(name, low_rank(place, Scaled(4.0)), lambda sites: as_lora(name, sites, 4.0))


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_dora_equals_pefts(name: str, place: str) -> None:
    configuration = low_rank(place, Dora(2.0))
    compare(name, configuration, lambda sites: as_lora(name, sites, 2.0, use_dora=True))


@pytest.mark.parametrize("name", SEPARATE)
def test_dora_at_its_beginning_equals_pefts_at_its_own(name: str) -> None:
    def theirs(sites: SiteTensors) -> Any:
        targets = [module_path(name, site) for site in sites]
        config = peft.LoraConfig(r=3, target_modules=targets, use_dora=True)
        return in_peft(name, config)

    compare(name, low_rank("attn.query+value", Dora(2.0)), theirs, moved=0.0)


@pytest.mark.parametrize("name", SEPARATE)
def test_rank_stabilised_lora_equals_pefts_with_one_rank(name: str) -> None:
    configuration = low_rank("attn.query+value", RankStabilised(6.0), 5)

    def theirs(sites: SiteTensors) -> Any:
        return as_lora(name, sites, 0.0, lora_alpha=6, use_rslora=True)

    compare(name, configuration, theirs)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_rank_stabilised_lora_equals_pefts_with_a_rank_a_layer(name: str) -> None:
    configuration = low_rank("attn.query+value", RankStabilised(6.0), (2, 5))

    def theirs(sites: SiteTensors) -> Any:
        ranks = {module_path(name, site): t["down"].shape[1] for site, t in sites.items()}
        assert sorted(ranks.values()) == [2, 2, 5, 5]
        return as_lora(name, sites, 0.0, lora_alpha=6, use_rslora=True, rank_pattern=ranks)

    compare(name, configuration, theirs)


@pytest.mark.parametrize("name", SEPARATE)
def test_lora_in_one_layer_equals_pefts_there(name: str) -> None:
    place = Place(("attn.query", "attn.value"), (1,))
    one = Modification(Linear(), place, composition=Scaled(3.0), width=2)
    compare(name, Configuration((one,)), lambda sites: as_lora(name, sites, 3.0))


@pytest.mark.parametrize("name", SEPARATE)
@pytest.mark.parametrize("moved", [0.0, 0.2], ids=["at the beginning", "moved"])
def test_pissa_equals_pefts(name: str, moved: float) -> None:
    """peft takes A₀B₀ out of W; ours leaves W alone and takes it out of Δ. peft's own beginning is
    in fp32, and near; the states are those of peft with A and B moved and W − A₀B₀ in fp64.
    """
    rank, place = 3, "attn.query+value"
    single: Any = twin(name, torch.float32)  # peft computes it of such weights only
    sites = Place.parse(place).sites(backbone(name).shapes)
    for site in sites:
        _set_apart(single.get_submodule(module_path(name, site.key)).weight, rank)
    model = copy.deepcopy(single).double()

    def theirs(tuned: SiteTensors) -> Any:
        targets = [module_path(name, site) for site in tuned]
        config = peft.LoraConfig(
            r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="pissa"
        )
        other = in_peft(name, config, copy.deepcopy(single))
        with torch.no_grad():
            for site, tensors in tuned.items():
                layer = module(other, name, site)
                whole = model.get_submodule(module_path(name, site)).weight
                a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                leading = _leading(whole, rank)
                for found in (b @ a, whole - layer.base_layer.weight):
                    assert (found - leading).abs().max() <= SINGLE * whole.abs().max()
                if not moved:
                    product = (tensors["down"] @ tensors["up"]).T
                    assert (product - leading).abs().max() <= TOLERANCE
                a.copy_(tensors["down"].T)
                b.copy_(tensors["up"].T)
                layer.base_layer.weight.copy_(whole - leading)
        return other

    ours = wrap(copy.deepcopy(model))
    compare(name, low_rank(place, Add(), rank, "pissa"), theirs, moved, ours)


def _leading(weight: Tensor, rank: int) -> Tensor:
    """The nearest matrix of that rank, by the eigenvectors of WᵀW."""
    _, vectors = torch.linalg.eigh(weight.T @ weight)
    top = vectors[:, -rank:]
    return weight @ top @ top.T


def _set_apart(weight: Tensor, rank: int) -> None:
    """Make the leading singular vectors well defined: in a random matrix the next ones are so near
    that single precision hardly tells them apart.
    """
    with torch.no_grad():
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        values[rank:] *= 0.5
        weight.copy_(left * values @ right)


# -- GPT-2: separate queries and values inside one fused layer ---------------------------------


def fused(sites: SiteTensors, key: str, parts: tuple[str, ...], rest: Tensor) -> dict[int, Tensor]:
    """Layer → a vector over c_attn's 3d outputs: ours where there is one, else `rest`."""
    found = {}
    for layer in (0, 1):
        vectors = list(rest.chunk(3))
        for index, part in enumerate(("query", "key", "value")):
            if part in parts:
                vectors[index] = sites[f"layers.{layer}.attn.{part}"][key]
        found[layer] = torch.cat(vectors)
    return found


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_lora_on_gpt2s_queries_and_values_is_one_of_twice_the_rank_in_blocks(dora: bool) -> None:
    rank, s, d = 3, 2.0, 32

    def theirs(sites: SiteTensors) -> Any:
        config = peft.LoraConfig(
            r=2 * rank,
            lora_alpha=2 * rank * s,
            target_modules=["c_attn"],
            fan_in_fan_out=True,
            use_dora=dora,
        )
        model: Any = in_peft("gpt2", config)
        with torch.no_grad():
            for layer in (0, 1):
                q, v = (sites[f"layers.{layer}.attn.{part}"] for part in ("query", "value"))
                c_attn = model.get_submodule(f"base_model.model.h.{layer}.attn.c_attn")
                c_attn.lora_A["default"].weight.copy_(torch.cat((q["down"].T, v["down"].T)))
                up = c_attn.lora_B["default"].weight.zero_()
                up[:d, :rank], up[2 * d :, rank:] = q["up"].T, v["up"].T
                if dora:
                    magnitude = c_attn.lora_magnitude_vector["default"].weight
                    rest = c_attn.base_layer.weight.norm(dim=0)
                    magnitude.copy_(fused(sites, "m", ("query", "value"), rest)[layer])
        return model

    composition = Dora(s) if dora else Scaled(s)
    compare("gpt2", low_rank("attn.query+value", composition, rank), theirs)


def test_lora_on_gpt2s_ffn_and_attention_output_equals_pefts() -> None:
    def theirs(sites: SiteTensors) -> Any:
        return as_lora("gpt2", sites, 2.0, fan_in_fan_out=True)

    compare("gpt2", low_rank("ffn.hidden+out", Scaled(2.0)), theirs)
    compare("gpt2", low_rank("attn.out", Scaled(2.0)), theirs)


# -- (IA)³, VeRA, norms ------------------------------------------------------------------------

LAST_OF_FFN = {"llama": "down_proj", "bart": "fc2", "t5": "wo", "gpt2": "mlp.c_proj"}


@pytest.mark.parametrize("name", [*SEPARATE, "gpt2"])
def test_ia3_equals_pefts(name: str) -> None:
    def theirs(sites: SiteTensors) -> Any:
        paths = {s: module_path(name, s.replace("ffn.activated", "ffn.out")) for s in sites}
        ffn = [path for site, path in paths.items() if "ffn" in site]
        config = peft.IA3Config(
            target_modules=sorted(set(paths.values())),
            feedforward_modules=ffn,
            fan_in_fan_out=name == "gpt2",
        )
        model: Any = in_peft(name, config)
        with torch.no_grad():
            for site, path in paths.items():
                scale = model.get_submodule(f"base_model.model.{path}").ia3_l["default"]
                if name == "gpt2" and "attn" in site:
                    layer = int(site.split(".")[1])
                    ones = torch.ones(96, dtype=torch.float64)
                    ours = fused(sites, "l", ("key", "value"), ones)[layer]
                else:
                    ours = sites[site]["l"]
                scale.copy_(ours.view_as(scale))
        return model

    compare(name, METHODS["ia3"].configuration(), theirs)


@pytest.mark.parametrize("name", SEPARATE)
def test_vera_equals_pefts(name: str) -> None:
    form, place = Vera(), Place.parse("attn.query+value")
    modification = Modification(form, place, width=6)

    def theirs(sites: SiteTensors) -> Any:
        targets = [module_path(name, site) for site in sites]
        config = peft.VeraConfig(r=6, target_modules=targets)
        model: Any = in_peft(name, config)
        frozen = {
            key: torch.empty(shape)
            for key, shape in form.constants(modification.sources(backbone(name).shapes), 6).items()
        }
        generator = Generator().manual_seed(0)  # "the same in every trial, process and export"
        with torch.no_grad():
            for key, tensor in frozen.items():
                form.initialise(key, tensor, generator)
            model.base_model.vera_A["default"].copy_(frozen["A"].T)
            model.base_model.vera_B["default"].copy_(frozen["B"].T)
            for site, tensors in sites.items():
                layer = module(model, name, site)
                layer.vera_lambda_d["default"].copy_(tensors["d"])
                layer.vera_lambda_b["default"].copy_(tensors["b"])
        return model

    compare(name, Configuration((modification,)), theirs)


@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # peft's, at every norm
@pytest.mark.parametrize("name", [*SEPARATE, "gpt2"])
def test_norm_tuning_equals_pefts(name: str) -> None:
    def theirs(sites: SiteTensors) -> Any:
        norms = sorted({tensor.rsplit(".", 1)[0] for tensor in sites})
        config = peft.LNTuningConfig(target_modules=norms)
        model: Any = in_peft(name, config)
        with torch.no_grad():
            for tensor, held in sites.items():
                path, which = tensor.rsplit(".", 1)
                norm = model.get_submodule(f"base_model.model.{path}")
                getattr(norm.ln_tuning_layers["default"], which).copy_(held["bias"])
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert trained == sum(held["bias"].numel() for held in sites.values())
        return model

    compare(name, METHODS["ln-tuning"].configuration(), theirs)
