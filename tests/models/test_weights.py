"""Weights: each kind by round trip, what travels with it, and every refusal."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from latentseg.config import ModelConfig, WeightsKind
from latentseg.errors import RunError, UserError
from latentseg.models.encoders import Encoder
from latentseg.models.resnet import DEEPLAB_LAYERS, STRIDES, DeepLabResNet
from latentseg.models.segmenter import AsppHead, Segmenter, build_segmenter
from latentseg.models.weights import RECIPES, check_kind, load_weights, read_state


def config_for(kind: WeightsKind, file: Path | str | None, **options: object) -> ModelConfig:
    given = {"encoder": "deeplab_resnet101", "head": "aspp", "weights_kind": kind, "weights": file and str(file)}
    return ModelConfig.model_validate(given | options)


def tiny(config: ModelConfig, num_classes: int = 5, num_latent: int = 3, seed: int = 0) -> Segmenter:
    """A segmenter whose ResNet is tiny; layout and loader are those of the big one."""
    torch.manual_seed(seed)
    recipe = RECIPES[config.weights_kind]
    net = DeepLabResNet((1, 2, 1, 1), width=8, stride_at=recipe.stride_at)
    encoder = Encoder(net, range(4), net.channels, STRIDES, recipe.mean, recipe.std, align_corners=True)
    return Segmenter(encoder, num_classes, num_latent, config)


def resnet_file(kind: WeightsKind, seed: int = 7) -> dict[str, Tensor]:
    """What a published file of the kind looks like, at the size of `tiny`."""
    torch.manual_seed(seed)
    net = DeepLabResNet((1, 2, 1, 1), width=8)
    state: dict[str, Tensor] = {
        key: torch.rand_like(value.float()) for key, value in net.state_dict().items() if key != "_extra_state"
    }
    if kind in ("coco", "caffe"):
        state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if kind == "coco":
        for i in range(4):
            state |= {f"layer5.conv2d_list.{i}.weight": torch.rand(5, 256, 3, 3)}
            state |= {f"layer5.conv2d_list.{i}.bias": torch.rand(5)}
    else:
        state |= {"fc.weight": torch.rand(10, 256), "fc.bias": torch.rand(10)}
    return state


@pytest.mark.parametrize("kind", ["coco", "caffe", "torchvision", "timm"])
def test_round_trip_of_each_kind(kind: WeightsKind, tmp_path: Path) -> None:
    state = resnet_file(kind)
    torch.save(state, tmp_path / "file.pth")
    config = config_for(kind, tmp_path / "file.pth")
    segmenter = tiny(config)
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    load_weights(segmenter, config)
    after = segmenter.state_dict()
    for key, value in state.items():
        if key.startswith("layer5."):
            assert torch.equal(after[key.replace("layer5.conv2d_list", "semantic_head.convs")], value)
        elif not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            assert torch.equal(after[f"encoder.net.{key}"], value)
    fresh = [key for key in after if key.startswith(("latent_head.", "semantic_head."))]
    fresh = [key for key in fresh if not (kind == "coco" and key.startswith("semantic_head."))]
    assert all(torch.equal(after[key], before[key]) for key in fresh)


def test_kind_sets_scale_and_stride() -> None:
    """Keys alone would let a COCO file run with torchvision's scale and stride; the outputs differ."""
    coco = tiny(config_for("coco", "f.pth")).eval()
    torchvision = tiny(config_for("torchvision", "f.pth")).eval()
    torchvision.encoder.load_state_dict(
        coco.encoder.state_dict() | {"net._extra_state": torch.tensor(0, dtype=torch.uint8)}
    )
    images = torch.rand(1, 3, 33, 33)
    seen: list[Tensor] = []
    coco.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps, others = coco.encode(images), torchvision.encode(images)
    means = torch.tensor([122.68, 116.67, 104.01]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], images * 255 - means, atol=1e-3, rtol=0)
    assert not torch.allclose(maps[0], others[0], rtol=0.1)
    normalised = seen[0]
    net, other = coco.encoder.net, torchvision.encoder.net
    assert torch.equal(net(normalised)[0], other(normalised)[0])  # the same weights, but
    assert not torch.allclose(net(normalised)[1], other(normalised)[1], rtol=0.1)  # another stride


def test_build_segmenter_sets_the_recipe_of_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEEPLAB_LAYERS, "deeplab_resnet50", (1, 1, 1, 1))
    for kind in ("coco", "caffe", "torchvision", "timm", "none"):
        config = config_for(kind, None, encoder="deeplab_resnet50")
        if kind in ("none", "timm"):
            segmenter = build_segmenter(config, 3, 0, pretrained=False)
            assert segmenter.encoder.net.stride_at == "3x3"
            assert segmenter.mean == pytest.approx((0.485, 0.456, 0.406))
        else:
            recipe = RECIPES[kind]
            segmenter = build_segmenter(config_for(kind, "x.pth", encoder="deeplab_resnet50"), 3, 0, False)
            assert segmenter.encoder.net.stride_at == recipe.stride_at
            assert segmenter.mean == pytest.approx(recipe.mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.1.conv3.weight"), r"missing: layer2\.1\.conv3\.weight"),
        (lambda state: state.update(more=torch.ones(1)), "extra: more"),
        (lambda state: state.update({"fc.weight": torch.ones(1)}), r"extra: fc\.weight"),
        (lambda state: state.update({"bn1.weight": torch.ones(9)}), r"wrong shape: bn1\.weight \(9,\) .*\(8,\)"),
        (lambda state: [state.update({f"x{i}": torch.ones(1)}) for i in range(12)], r"x7, \.\.\. \(12 in all\)"),
    ],
)
def test_files_that_do_not_match_are_refused(change: object, message: str, tmp_path: Path) -> None:
    state = resnet_file("coco")
    assert callable(change)
    change(state)
    torch.save(state, tmp_path / "file.pth")
    config = config_for("coco", tmp_path / "file.pth")
    segmenter = tiny(config)
    before = segmenter.state_dict()["encoder.net.conv1.weight"].clone()
    with pytest.raises(UserError, match=message):
        load_weights(segmenter, config)
    assert torch.equal(segmenter.state_dict()["encoder.net.conv1.weight"], before)


def test_class_count_of_the_coco_head(tmp_path: Path) -> None:
    torch.save(resnet_file("coco"), tmp_path / "file.pth")
    config = config_for("coco", tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"5 classes.*19.*model\.load_head=false"):
        load_weights(tiny(config, num_classes=19), config)
    without = config_for("coco", tmp_path / "file.pth", load_head=False)
    segmenter = tiny(without, num_classes=19)
    load_weights(segmenter, without)
    assert torch.equal(segmenter.state_dict()["encoder.net.conv1.weight"], resnet_file("coco")["conv1.weight"])
    light = config_for("coco", tmp_path / "file.pth", head="light", head_channels=8)
    with pytest.raises(UserError, match=r"model\.head=light.*model\.load_head=false"):
        load_weights(tiny(light), light)


@pytest.mark.parametrize("rates", [[6, 12], [24, 6]])
def test_some_dilations_of_the_coco_head(rates: list[int], tmp_path: Path) -> None:
    file = resnet_file("coco")
    torch.save(file, tmp_path / "file.pth")
    config = config_for("coco", tmp_path / "file.pth", aspp_rates=rates)
    segmenter = tiny(config)
    load_weights(segmenter, config)
    head = segmenter.semantic_head
    assert isinstance(head, AsppHead)
    assert [conv.dilation for conv in head.convs] == [(rate, rate) for rate in rates]
    for i, rate in enumerate(rates):
        assert torch.equal(
            head.convs.state_dict()[f"{i}.weight"], file[f"layer5.conv2d_list.{(6, 12, 18, 24).index(rate)}.weight"]
        )


def ours(segmenter: nn.Module, file: Path) -> dict[str, Tensor]:
    state = {f"segmenter.{key}": value.contiguous() for key, value in segmenter.state_dict().items()}
    state["method.cooccurrence"] = torch.ones(2, 2)
    save_file(state, file)
    return state


def test_own_checkpoint_brings_scale_and_stride(tmp_path: Path) -> None:
    file = tmp_path / "ours.safetensors"
    source = tiny(config_for("coco", "x.pth"), seed=3).eval()
    ours(source, file)
    config = config_for("latentseg", file)
    target = tiny(config)
    assert target.mean != source.mean
    load_weights(target, config)
    assert target.mean == source.mean
    assert target.encoder.net.stride_at == "1x1"
    images = torch.rand(1, 3, 33, 33)
    for mine, theirs in zip(target.eval()(images), source(images), strict=True):
        assert torch.equal(mine, theirs)


def test_own_checkpoint_with_other_heads(tmp_path: Path) -> None:
    file = tmp_path / "ours.safetensors"
    state = ours(tiny(config_for("torchvision", "x.pth"), seed=3), file)
    config = config_for("latentseg", file)
    for num_latent in (0, 8):  # the latent head goes, or starts afresh
        segmenter = tiny(config, num_latent=num_latent)
        load_weights(segmenter, config)
        key = "semantic_head.convs.0.weight"
        assert torch.equal(segmenter.state_dict()[key], state[f"segmenter.{key}"])
    same = tiny(config)
    load_weights(same, config)
    assert torch.equal(same.state_dict()["latent_head.convs.0.bias"], state["segmenter.latent_head.convs.0.bias"])
    with pytest.raises(UserError, match=r"5 classes.*11.*model\.load_head=false"):
        load_weights(tiny(config, num_classes=11), config)
    load_weights(tiny(config, num_classes=11), config_for("latentseg", file, load_head=False))


def test_own_checkpoint_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "ours.safetensors"
    save_file({"weight": torch.ones(1)}, file)
    config = config_for("latentseg", file)
    with pytest.raises(UserError, match=r"no checkpoint of latentseg"):
        load_weights(tiny(config), config)
    light = config_for("latentseg", file, head="light", head_channels=8)
    ours(tiny(light), file)
    with pytest.raises(UserError, match=r"missing: segmenter\.semantic_head\.convs"):
        load_weights(tiny(config), config)


def test_light_own_checkpoint_round_trip(tmp_path: Path) -> None:
    config = ModelConfig(weights_kind="latentseg", weights=str(tmp_path / "ours.safetensors"), head_channels=8)
    source = build_segmenter(ModelConfig(head_channels=8), 3, 4).eval()
    ours(source, tmp_path / "ours.safetensors")
    target = build_segmenter(config, 3, 4).eval()
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("encoder", "kind", "allowed"),
    [
        ("lite0", "coco", "lite0 or latentseg or none"),
        ("lite0", "timm", "lite0 or latentseg or none"),
        ("deeplab_resnet101", "lite0", "coco or caffe or torchvision or torchvision_coco or timm or latentseg or none"),
        ("resnet18", "lite0", "timm or latentseg or none"),
        ("resnet18", "torchvision", "timm or latentseg or none"),
    ],
)
def test_pairs_that_do_not_fit(encoder: str, kind: WeightsKind, allowed: str) -> None:
    with pytest.raises(UserError, match=allowed):
        check_kind(ModelConfig(encoder=encoder, weights_kind=kind))


def test_a_kind_and_its_file() -> None:
    with pytest.raises(UserError, match=r"needs its file.*model\.weights_kind=none"):
        check_kind(config_for("coco", None))
    with pytest.raises(UserError, match=r"not read with model\.weights_kind=none"):
        check_kind(config_for("none", "x.pth"))


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never run",)


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.pth"
    torch.save(resnet_file("coco"), good)
    content = good.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    torch.save({"weight": Malicious()}, tmp_path / "evil.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"lr": 0.1, "weight": torch.ones(1)}, tmp_path / "mixed.pth")
    (tmp_path / "some.ckpt").write_bytes(content)
    messages = {
        "gone.pth": "no such file",
        "cut.pth": "truncated or damaged",
        "empty.pt": "truncated or damaged",
        "text.pth": "no PyTorch file",
        "cut.safetensors": "damaged",
        "evil.pth": "could run code",
        "list.pth": "no state dict but list",
        "mixed.pth": "no tensors: lr",
        "some.ckpt": "not from '.ckpt'",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=message) as caught:
            read_state(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_and_prefix_are_taken_off(wrapper: str, tmp_path: Path) -> None:
    torch.save({wrapper: {"module.a": torch.ones(2)}, "epoch": 3}, tmp_path / "file.pth")
    assert read_state(tmp_path / "file.pth")["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.",
        b"",
        b"\x80\x02N.",
        b'\x80\x02cos\nsystem\n(S"true"\ntR.',
    ],
)
def test_malformed_weights_are_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(RunError, match=r"bad\.pth (is truncated or damaged|holds)"):
        read_state(tmp_path / "bad.pth")
