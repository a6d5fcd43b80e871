"""Presets against the paper's numbers, and what is refused with which message."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from latentseg.config import REMOVED, Config, DataConfig
from latentseg.data.colors import CITYSCAPES as CITYSCAPES_CLASSES
from latentseg.data.colors import VOC_CLASSES
from latentseg.errors import RunError, UserError
from latentseg.methods.given_classes import group_ids
from latentseg.methods.table import METHODS, readers
from latentseg.presets import (
    check_config,
    describe_options,
    differences,
    dump_config,
    group_maps,
    load_config,
    load_run,
    option_names,
    preset_names,
    preset_summaries,
    preset_text,
)
from latentseg.sweeps.files import read_sweep

# Section 6 of the specification, and what the paper inherits from AdvSemiSeg (section 2).
PAPER: dict[str, Any] = {
    "seed": 0,
    "device": "auto",
    "precision": "32-true",
    "validate_every": 0,
    "validate_split": "val",
    "data.labeled": "1/8",
    "data.every_class": None,
    "data.unlabeled": [],
    "data.holdout": 0,
    "data.classes": None,
    "data.class_map": None,
    "data.ignored_values": [255],
    "data.resize": 1.0,
    "augment.scale": (0.5, 1.5),
    "augment.mirror": 0.5,
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.saturation": 0.0,
    "augment.hue": 0.0,
    "model.encoder": "deeplab_resnet101",
    "model.weights_kind": "coco",
    "model.head": "aspp",
    "model.frozen": False,
    "model.batchnorm": "follow",
    "discriminator.width": 64,
    "discriminator.downscale": 1,
    "method.name": "latent",
    "method.num_latent": 20,
    "method.lambda_latent": 1.0,
    "method.lambda_cons": 0.1,
    "method.lambda_lbl_adv": 0.01,
    "method.lambda_ulbl_adv": 0.001,
    "method.ema_alpha": "dataset",
    "optim.name": "sgd",
    "optim.lr": 2.5e-4,
    "optim.head_factor": 10.0,
    "optim.momentum": 0.9,
    "optim.weight_decay": 1e-4,
    "optim.discriminator_lr": 1e-4,
    "optim.betas": (0.9, 0.99),
    "optim.power": 0.9,
    "inference.mode": "auto",  # whole, for images of these sizes
    "inference.scales": [1.0],
    "inference.mirror": False,
}
VOC = PAPER | {
    "steps": 20000,
    "batch_size": 10,
    "data.kind": "voc",
    "data.train_list": "train_aug",
    "data.masks": "SegmentationClassAug",
    "augment.crop": (321, 321),
    "model.load_head": True,
    "method.consistency_start": 0.25,
}
CITYSCAPES = PAPER | {
    "steps": 40000,
    "batch_size": 2,
    "data.kind": "cityscapes",
    "augment.crop": (505, 505),
    "model.load_head": False,
    "method.consistency_start": 0.125,
}


# UniMatch (arXiv:2208.09910) and UniMatch V2 (arXiv:2410.10777), from the configurations of their repositories.
MATCH: dict[str, Any] = {
    "data.labeled": "1/8",
    "augment.scale": (0.5, 2.0),
    "augment.mirror": 0.5,
    "strong.jitter": 0.8,
    "strong.brightness": 0.5,
    "strong.hue": 0.25,
    "strong.grey": 0.2,
    "strong.blur": 0.5,
    "strong.cutmix": 0.5,
    "model.frozen": False,
    "method.name": "latent_match",
    "method.threshold": 0.95,
    "method.teacher_decay": 0.996,
    "method.pool_power": 3,
    "method.balance": 1,
    "method.consistency_start": 0.15,
    "optim.power": 0.9,
    "inference.miou_over": "all",
}
MATCH_VOC = MATCH | {"data.kind": "voc", "data.train_list": "train_aug", "inference.mode": "auto"}
MATCH_CITYSCAPES = MATCH | {"data.kind": "cityscapes", "inference.mode": "slide", "inference.overlap": 1 / 3}
RESNET = {
    "batch_size": 8,
    "model.encoder": "deeplab_resnet101",
    "model.weights_kind": "torchvision",
    "model.head": "aspp",
    "model.batchnorm": "train",
    "optim.name": "sgd",
    "optim.momentum": 0.9,
    "optim.weight_decay": 2 * 1e-4,  # on the sum of the losses, theirs on half of it
}
DINOV2 = {
    "augment.crop": (518, 518),
    "model.encoder": "vit_small_patch14_dinov2.lvd142m",
    "model.weights_kind": "timm",
    "model.head": "light",
    "model.head_stride": 14,
    "optim.name": "adamw",
    "optim.lr": 5e-6,
    "optim.head_factor": 40,
    "optim.weight_decay": 0.01,
}


def option(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(("name", "expected"), [("voc", VOC), ("cityscapes", CITYSCAPES)])
def test_paper_presets_have_the_papers_values(name: str, expected: dict[str, Any]) -> None:
    config = load_config(name)
    assert {key: option(config, key) for key in expected} == expected
    assert config.method.consistency_start * config.steps == 5000


@pytest.mark.parametrize(
    ("name", "images", "epochs", "expected"),
    [
        ("voc_match", 10582, 80, MATCH_VOC | RESNET | {"optim.lr": 0.001 / 2, "augment.crop": (321, 321)}),
        ("voc_match_dinov2", 10582, 60, MATCH_VOC | DINOV2 | {"batch_size": 16}),
        (
            "cityscapes_match", 2975, 240,
            MATCH_CITYSCAPES | RESNET | {"optim.lr": 0.005 / 2, "optim.head_factor": 1}
            | {"augment.crop": (801, 801), "inference.window": (801, 801)},
        ),
        (
            "cityscapes_match_dinov2", 2975, 180,
            MATCH_CITYSCAPES | DINOV2 | {"batch_size": 8, "inference.window": (518, 518)},
        ),
    ],
)  # fmt: skip
def test_match_presets_have_unimatchs_values(name: str, images: int, epochs: int, expected: dict[str, Any]) -> None:
    config = load_config(name)
    assert {key: option(config, key) for key in expected} == expected
    unlabeled = images - images // 8
    assert config.steps == epochs * (unlabeled // config.batch_size)
    assert not METHODS[config.method.name].has_discriminator(config.method)
    for peer in ("unimatch", "fixmatch", "mean_teacher", "cps", "supervised"):
        assert load_config(name, [f"method.name={peer}"]).method.name == peer


def test_every_preset_loads_and_says_what_it_is_for() -> None:
    assert all(preset_text(name).startswith("# ") for name in preset_names())
    assert all(len(summary) > 20 for summary in preset_summaries().values())
    kinds = {name: load_config(name).data.kind for name in preset_names()}
    expected = {
        "animals": "voc",
        "animals_match": "voc",
        "camvid": "folder",
        "camvid_match": "folder",
        "cityscapes": "cityscapes",
        "cityscapes_match": "cityscapes",
        "cityscapes_match_dinov2": "cityscapes",
        "folder": "folder",
        "scenes": "scenes",
        "scenes_match": "scenes",
        "voc": "voc",
        "voc_advsemiseg": "voc",
        "voc_match": "voc",
        "voc_match_dinov2": "voc",
    }
    assert kinds == expected
    assert preset_names() == list(expected)


@pytest.mark.parametrize("name", ["camvid", "animals"])
def test_laptop_match_presets_are_the_row_that_was_measured(name: str) -> None:
    """The row latent_match of benchmarks/long_camvid.yaml and long_animals.yaml."""
    sweep = read_sweep(
        Path(__file__).parents[1] / f"benchmarks/long_{name}.yaml", ["rows=[latent_match]", "grid.seed=[0]"]
    )
    keys = {line.split(":")[0] for line in differences(sweep.cells[0].config, load_config(f"{name}_match"))}
    assert {key for key in keys if not readers(key) or "latent_match" in readers(key)} == {
        "data.check",
        "validate_every",
    }


def test_animals_maps_its_classes() -> None:
    data = load_config("animals").data
    assert data.classes == ["background", "cat", "cow", "dog", "horse", "person", "sheep"]
    assert data.class_map == {0: 0, 8: 1, 10: 2, 12: 3, 13: 4, 15: 5, 17: 6}


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("data.labeled=1/30", "data.labeled", "1/30"),
        ("data.labeled=12", "data.labeled", 12),
        ("data.labeled=0.125", "data.labeled", 0.125),
        ("data.labeled=all", "data.labeled", "all"),
        ("data.labeled=lists/first.txt", "data.labeled", "lists/first.txt"),
        ("data.root=/data/a=b", "data.root", "/data/a=b"),
        ("data.root=null", "data.root", None),
        ("data.unlabeled=[one,two]", "data.unlabeled", ["one", "two"]),
        ("data.class_map.3=1", "data.class_map", {3: 1}),
        ("data.class_map={0: 0, 7: 1}", "data.class_map", {0: 0, 7: 1}),
        ("augment.crop=[64,96]", "augment.crop", (64, 96)),
        ("inference.scales=[0.5,1,1.5]", "inference.scales", [0.5, 1.0, 1.5]),
        ("optim.lr=1e-3", "optim.lr", 1e-3),
        ("optim.head_factor=3", "optim.head_factor", 3.0),
        ("method.ema_alpha=0.01", "method.ema_alpha", 0.01),
        ("method.ema_alpha=labeled", "method.ema_alpha", "labeled"),
        ("model.frozen=false", "model.frozen", False),
        ("steps=7", "steps", 7),
    ],
)
def test_overrides(override: str, key: str, expected: Any) -> None:
    value = option(load_config("scenes", [override]), key)
    assert value == expected
    assert type(value) is type(expected)


def test_an_override_replaces_a_list_and_the_last_one_wins() -> None:
    config = load_config("camvid", ["data.classes=[a,b]", "seed=1", "seed=2"])
    assert config.data.classes == ["a", "b"]
    assert config.seed == 2


def test_a_class_map_entry_joins_those_of_the_preset() -> None:
    class_map = load_config("animals", ["data.class_map.3=0"]).data.class_map
    assert class_map is not None
    assert len(class_map) == 8
    assert class_map[3] == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.labled=1/8", r"unknown option data\.labled; did you mean data\.labeled\?"),
        ("num_latent=3", r"unknown option num_latent; did you mean method\.num_latent\?"),
        ("stps=3", r"unknown option stps; did you mean steps\?"),
        ("steps.more=3", r"unknown option steps\.more; did you mean steps\?"),
        ("zzz=3", r"^unknown option zzz$"),
        ("steps=many", r"scenes: steps: .*integer \(value 'many'\)"),
        ("steps=2.5", r"steps: .*integer \(value 2\.5\)"),
        ("steps=true", r"steps: .*integer \(value True\)"),
        ("steps=0", r"steps: .*greater than 0 \(value 0\)"),
        ("seed=-1", r"seed: .*greater than or equal to 0 \(value -1\)"),
        ("optim.lr=.inf", r"optim\.lr: .*less than or equal to 100 \(value inf\)"),
        ("optim.lr=fast", r"optim\.lr: .*number \(value 'fast'\)"),
        ("optim.betas=[0.9]", r"optim\.betas"),
        ("optim.betas=[0.9,1.5]", r"optim\.betas: .*less than 1 \(value 1\.5\)"),
        ("optim.name=adam", r"optim\.name: .*'sgd' or 'adamw' \(value 'adam'\)"),
        ("augment.mirror=1.5", r"augment\.mirror: .*less than or equal to 1"),
        ("augment.scale=[1.5,0.5]", r"augment: scale \(1\.5, 0\.5\) must be \(lowest, highest\)"),
        ("augment.crop=[64,0]", r"augment\.crop: .*greater than or equal to 32 \(value 0\)"),
        ("inference.scales=[]", r"inference\.scales: .*at least 1"),
        ("inference.overlap=1", r"inference\.overlap: .*less than or equal to 0\.9 \(value 1\)"),
        ("device=gpu", r"device: .*'auto', 'cpu', 'cuda' or 'mps' \(value 'gpu'\)"),
        ("method.name=magic", r"method\.name: there is no such method; choose one of supervised, latent, advsemiseg"),
        ("method.num_latent=1", r"method\.num_latent: .*greater than or equal to 2"),
        ("data.labeled=0", r'data\.labeled: must be a fraction .*, a number \(12\), "all", or a list file \(value 0\)'),
        ("data.labeled=true", r"data\.labeled: must be .* \(value True\)"),
        ("data.labeled=1.0", r"data\.labeled: must be .* \(value 1\.0\)"),
        ("data.labeled=3/2", r"data\.labeled: must be .* \(value '3/2'\)"),
        ("data.labeled=1/0", r"data\.labeled: must be .* \(value '1/0'\)"),
        ("data.class_map.a=1", r"data\.class_map: .*integer"),
        ("data.ignored_values=[4294967296]", r"data\.ignored_values: .*4294967296 \(value 4294967296\)"),
        ("data=3", r"data: "),
        ("model.head=aspp", r"model\.head=aspp .* deeplab_resnet encoder, or model\.head=light for lite0"),
        ("validate_split=holdout", r"validate_split=holdout needs data\.holdout > 0"),
        ("steps", r"override 'steps' is not of the form key=value"),
        ("=3", r"override '=3' is not of the form key=value"),
        ("data.classes=[a", r"override 'data\.classes=\[a' cannot be read as YAML"),
        ("data.root=${nothing}", r"cannot be read as YAML: references .* are not read"),
        ("steps=" + "1" * 5000, r"override 'steps=1.* cannot be read as YAML: .*5000 digits"),
        ("[=steps", r"^unknown option \[$"),
        (
            "method.ema_alpha=2",
            r"^scenes: method\.ema_alpha: .* 1 \(value 2\); .*'dataset' or 'labeled' \(value 2\)$",
        ),
    ],
)
def test_refused_overrides(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("scenes", [override])


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: none\nmethod:\n  num_latnt: 3\noptim:\n  lr: -1\n")
    with pytest.raises(UserError) as error:
        load_config(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{path}: steps: ")
    assert lines[1] == "unknown option method.num_latnt; did you mean method.num_latent?"
    assert lines[2].startswith("optim.lr: Input should be greater than 0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [1\nseed: 2", "line 2 cannot be read as YAML: expected"),
        ("a: 1\na: 2", "line 2 cannot be read as YAML: the key a is there twice"),
        ("steps: " + "1" * 5000, "a number of 5000 digits"),
        ("steps: ${steps}", "references of the form .* are not read"),
        ("data: {root: '${oc.env:HOME}'}", "references of the form .* are not read"),
        ("data: &a [1, 2]\nsteps: *a", "aliases .* are not read"),
        ("steps: " + "[" * 5000, "values are nested more than 20 deep"),
        ("steps: !!python/object/apply:os.system [ls]", "values of the type .*os.system are not read"),
        ('data: {root: "a\\0b"}', "a character that no file can hold"),
        ('data: {root: "\\ud800"}', "a character that no file can hold"),
        ("? [steps]\n: 1", "a key must be a word or a number"),
        ("steps: !!int ''", "a value is none of its type"),
        ("- steps\n- seed", "pairs at the top, found list"),
        ("steps", "pairs at the top, found str"),
        ("#" * 200_001, "more than 200,000 bytes"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        load_config(path)


def test_a_list_at_the_top_is_refused_with_overrides_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- steps")
    with pytest.raises(UserError, match="pairs at the top, found list"):
        load_config(path, ["steps=3"])


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a preset .* did you mean the preset cityscapes\?"):
        load_config("cityscape")
    with pytest.raises(UserError, match="neither a preset"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="no preset mine; there are animals, animals_match, camvid"):
        preset_text("mine")


@pytest.mark.parametrize("option", REMOVED)
def test_options_of_the_earlier_latent_match_are_dropped_or_refused(tmp_path: Path, option: str) -> None:
    """A run folder holds every option of its day, whatever its method was."""
    message = rf"method\.{option} belonged to the latent_match of version 0\.1 before \(commit 0dad059\).* train anew"
    path = tmp_path / "config.yaml"
    for name in ("supervised", "latent", "unimatch"):
        path.write_text(f"method: {{name: {name}, {option}: 1, lambda_cons: 0.5}}")
        assert load_config(path, of_run=True) == Config.model_validate({"method": {"name": name, "lambda_cons": 0.5}})
    path.write_text(f"method: {{name: latent_match, {option}: 1, lambda_match: 0.5}}")
    for of_run in (True, False):
        with pytest.raises(UserError, match=message) as error:
            load_config(path, of_run=of_run)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match=message):
        load_config("camvid_match", [f"method.{option}=1"])


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    assert load_config(tmp_path / "mine.yaml") == Config()


@pytest.mark.parametrize("name", ["animals", "camvid", "cityscapes", "folder", "scenes", "voc", "voc_match_dinov2"])
def test_a_dumped_config_reads_back_equal(tmp_path: Path, name: str) -> None:
    overrides = ["data.root='/a b: c/#d'", "data.unlabeled=['x y']", "optim.lr=1.2345678901234567e-05"]
    config = load_config(name, overrides)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    assert differences(config, again) == []
    assert again.data.root == "/a b: c/#d"


def test_differences_name_the_keys_and_both_values() -> None:
    ours = load_config("scenes", ["optim.lr=0.5", "data.class_map={1: 2}"])
    lines = differences(ours, load_config("scenes", ["optim.lr=0.25"]))
    assert "optim.lr: 0.5 here, 0.25 there" in lines
    assert {line.split(":")[0] for line in lines} == {"optim.lr", "data.class_map.1"}


def test_a_config_is_frozen() -> None:
    config = load_config("scenes")
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.optim.lr = 3.0


def test_every_option_is_explained() -> None:
    text = "\n".join(describe_options())
    leaves = [name for name in option_names() if not any(other.startswith(f"{name}.") for other in option_names())]
    assert len(leaves) > 60
    for name in leaves:
        line = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
        assert not line.endswith("None"), f"{name} has no description"


def test_check_config_takes_plain_values() -> None:
    assert check_config({"steps": 3}, "here").steps == 3
    with pytest.raises(UserError, match="here: expected `key: value` pairs at the top, found NoneType"):
        check_config(None, "here")


def test_repeated_updates_are_refused_with_adamw() -> None:
    adamw = ["optim.name=adamw", "optim.encoder_updates=1"]
    assert load_config("scenes", adamw).optim.name == "adamw"
    with pytest.raises(UserError, match=r"optim: encoder_updates=3 is AdvSemiSeg's SGD .* optim\.name=sgd only"):
        load_config("scenes", ["optim.name=adamw", "optim.encoder_updates=3"])


def test_a_crop_too_small_for_the_discriminator_is_refused_before_anything_starts() -> None:
    small = ["augment.crop=[64,62]", "discriminator.downscale=2"]
    assert load_config("scenes", small).augment.crop == (64, 62)
    with pytest.raises(UserError, match=r"would see maps of 31 pixels .* needs 32"):
        load_config("scenes", [*small, "method.lambda_ulbl_adv=0.001"])


def test_groups_by_name_by_file_and_by_hand_become_the_map_itself(tmp_path: Path) -> None:
    given = ["method.name=given_classes"]
    shipped = load_config("camvid", [*given, "method.groups=camvid5"])
    assert shipped.method.groups == group_maps()["camvid5"]
    (tmp_path / "map.yaml").write_text("low: [a, b]\nhigh: [c]\n")
    by_file = load_config("camvid", [*given, f"method.groups={tmp_path / 'map.yaml'}"])
    assert by_file.method.groups == {"low": ["a", "b"], "high": ["c"]}
    by_hand = load_config("camvid", [*given, "method.groups.low=[a,b]", "method.groups.high=[c]"])
    assert by_hand == by_file
    (tmp_path / "run.yaml").write_text(dump_config(by_file))
    (tmp_path / "map.yaml").unlink()
    assert load_config(tmp_path / "run.yaml") == by_file  # the run needs the file no more
    assert load_config("camvid", [*given, "method.groups=identity"]).method.groups == "identity"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "nor a YAML file"), ("- a\n", "must hold lines of the form"), ("a: b\n", "must hold lines of the form")],
)
def test_groups_that_cannot_be_read(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_config("camvid", ["method.name=given_classes", f"method.groups={path}"])
    with pytest.raises(UserError, match=r"needs method\.groups"):
        load_config("camvid", ["method.name=given_classes"])


@pytest.mark.parametrize(
    ("name", "preset", "groups"),
    [("voc10", None, 10), ("animals4", "animals", 4), ("cityscapes7", None, 7), ("camvid5", "camvid", 5)],
)
def test_shipped_maps_fit_their_classes(name: str, preset: str | None, groups: int) -> None:
    classes = (
        load_config(preset).data.classes if preset else {"voc10": VOC_CLASSES, "cityscapes7": CITYSCAPES_CLASSES}[name]
    )
    shipped = group_maps()[name]
    assert len(shipped) == groups
    assert sorted(set(group_ids(shipped, list(classes or ())))) == list(range(groups))


def test_advsemiseg_as_its_code_runs() -> None:
    config = load_config("voc_advsemiseg")
    beside_voc = {line.split(":")[0] for line in differences(config, load_config("voc"))}
    assert beside_voc == {
        "augment.mirror", "augment.scale", "discriminator.real_maps", "inference.miou_over", "inference.pad_to",
        "method.name", "model.aspp_rates", "optim.encoder_updates", "optim.weight_decay",
    }  # fmt: skip
    assert (config.model.aspp_rates, config.optim.encoder_updates, config.optim.weight_decay) == ([6, 12], 3, 5e-4)
    assert (config.method.lambda_self, config.method.trust, config.method.consistency_start) == (0.1, 0.2, 0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * 5000, "too long for a path"),
        ("a/" + "é" * 128, "too long for a path"),
        ("~nobody-of-this-name/x", "nobody of that name has a home folder"),
    ],
)
@pytest.mark.parametrize("option", ["data.root", "data.labeled", "data.unlabeled", "model.weights", "cache_folder"])
def test_what_cannot_be_a_path_is_refused(option: str, text: str, message: str) -> None:
    given = f"[{text}]" if option == "data.unlabeled" else text
    with pytest.raises(UserError, match=rf"scenes: {option}: .*{message}"):
        load_config("scenes", [f"{option}={given}"])
    with pytest.raises(UserError, match="neither a preset"):
        load_config(text)


def test_a_damaged_run_folder_has_a_status_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for content in ("steps: 0", "- a", "steps: ${oc.env:HOME}", "steps: ["):
        path.write_text(content)
        with pytest.raises(RunError, match=r"config\.yaml"):
            load_run(tmp_path)
    path.write_text("steps: 3")
    assert load_run(tmp_path, ["device=cpu", "inference.mirror=true"]).inference.mirror
    with pytest.raises(UserError, match=r"mirror: ") as error:
        load_config(path, ["inference.mirror=3"], of_run=True)
    assert not isinstance(error.value, RunError)  # the override is wrong, not the folder
    with pytest.raises(RunError, match="is not a run folder"):
        load_run(tmp_path / ("x" * 300))


def test_yaml_in_other_encodings_and_text_that_looks_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text("data: {root: é}", encoding=encoding)
        assert load_config(path).data.root == "é"
    for odd in ("1:30", "1e5", "2020-01-01", "null", "a\nb\x85c\u2028d", " ", "=", "${"[:1], "'\"", "#", "0x1F"):
        config = load_config("scenes").model_copy(update={"data": DataConfig(kind="scenes", root=odd)})
        path.write_text(dump_config(config), encoding="utf-8")
        assert load_config(path).data.root == odd
    assert load_config("scenes", ["data.root=1:30"]).data.root == "1:30"
    assert load_config("scenes", ["optim.lr=1e-3"]).optim.lr == 0.001
