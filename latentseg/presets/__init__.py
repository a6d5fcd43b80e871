"""Presets and YAML files: read, overridden, checked, written, explained."""

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from latentseg.config import REMOVED, RENAMED, Config
from latentseg.errors import RunError, UserError
from latentseg.methods.table import METHODS, readers
from latentseg.presets.plain import named_file, read_yaml, read_yaml_file, write_yaml


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files(__name__)
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The YAML of a preset.

    Raises:
        UserError: There is no such preset.
    """
    if name not in preset_names():
        raise UserError(f"no preset {name}; there are {', '.join(preset_names())}")
    return (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


def group_maps() -> dict[str, dict[str, list[str]]]:
    """The maps from groups to classes that come with the package, by name, for `method.groups`."""
    folder = resources.files(__name__) / "groups"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {Path(entry.name).stem: _mapping(read_yaml(entry.read_bytes(), entry.name), entry.name) for entry in files}


def preset_summaries() -> dict[str, str]:
    """What each preset is for, from its first line."""
    return {name: preset_text(name).splitlines()[0].removeprefix("# ") for name in preset_names()}


def describe_options(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """One line per option: key, default, choices, meaning, and the methods that read it where not all do."""
    lines: list[str] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines += ["", *describe_options(field.annotation, f"{prefix}{name}.")]
        else:
            kind = str(field.annotation).removeprefix("typing.") if get_args(field.annotation) else ""
            choices = kind.removeprefix("Literal") + " " if kind.startswith("Literal") else ""
            if prefix + name == "method.name":
                choices = f"{list(METHODS)} "
            reading = readers(prefix + name)
            only = f" [{', '.join(reading)}]" if reading else ""
            lines.append(f"{prefix}{name} = {field.default}  {choices}{field.description}{only}")
    return lines


def load_config(
    source: str | Path, overrides: list[str] | tuple[str, ...] = (), of_run: bool = False, keep_unread: bool = False
) -> Config:
    """Read a preset or a YAML file, apply overrides and check everything.

    Args:
        source: Name of a preset, or path of a YAML file.
        overrides: `key=value` strings with dotted keys, for example `data.labeled=1/30`. One that the method does not
            read is refused.
        of_run: The file is the config.yaml of a run folder: options that have another name by now are read.
        keep_unread: Overrides that the method does not read are not refused.

    Raises:
        UserError: The source is unknown, or an option is unknown, of the wrong type or out of range.
    """
    values = _read_run(Path(source)) if of_run else _read_source(source)
    for override in overrides if isinstance(values, dict) else ():
        _override(values, override)
    if isinstance(values, dict) and isinstance(values.get("method"), dict):
        groups = values["method"].get("groups")
        if isinstance(groups, str) and groups != "identity":  # the run folder keeps the map itself, not its name
            values["method"]["groups"] = _read_groups(groups)
    config = check_config(values, str(source))
    for override in () if keep_unread else overrides:
        refuse_unread(override.partition("=")[0].strip(), config.method.name)
    return config


AFTER_TRAINING = ("data.root", "device", "devices", "num_nodes", "threads", "precision", "inference.*")
"""Options that may be others when a run is used."""


def load_run(folder: Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The configuration of a run folder for inference.

    Args:
        folder: The run folder.
        overrides: `key=value` of `AFTER_TRAINING`. The number of processes is not that of the training, but 1 unless
            named here.

    Raises:
        RunError: There is no run, or its configuration is damaged.
        UserError: An override would change what was trained.
    """
    if named_file(str(folder / "config.yaml")) is None:
        raise RunError(f"{folder} is not a run folder (no config.yaml in it)")
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in AFTER_TRAINING and not key.startswith("inference."):
            raise UserError(f"{key[:100]} cannot be changed after training; what can: {', '.join(AFTER_TRAINING)}")
    return load_config(folder / "config.yaml", ["devices=1", "num_nodes=1", *overrides], of_run=True)


def _override(values: dict[str, Any], override: str) -> None:
    """Set one option, in place."""
    key, equals, text = override.partition("=")
    key, shown = key.strip(), f"override {override[:100]!r}"
    if not equals or not key:
        raise UserError(f"{shown} is not of the form key=value, such as data.labeled=1/30")
    _known_path(key)
    *sections, name = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(f"{shown}: {section} holds no options there, but {repr(values)[:100]}")
    values[name] = read_yaml(text, shown)


def _read_run(path: Path) -> dict[str, Any]:
    """The options of a run folder's config.yaml by the names they have now, without those that are gone.

    Raises:
        RunError: The file is missing or damaged, or of another version; or the run is one of the earlier latent_match,
            which read what is gone.
    """
    try:
        values = read_yaml_file(path, str(path))
        if isinstance(values, dict):
            _read_earlier(values, str(path))
        check_config(values, str(path))
    except UserError as error:
        raise RunError(str(error)) from error
    return dict(values)


def _read_earlier(values: dict[str, Any], source: str) -> None:
    """Bring the options of a run folder up to date, in place."""
    for old, new in RENAMED.items():
        section, _, name = old.rpartition(".")
        if isinstance(options := values.get(section), dict) and name in options:
            options[new.rpartition(".")[2]] = options.pop(name)
    method = values.get("method")
    if not isinstance(method, dict):
        return
    found = [name for name in REMOVED if name in method]
    if found and method.get("name") == "latent_match":
        raise UserError(f"{source}: {_removed(f'method.{found[0]}')}")
    for name in found:
        del method[name]


def _removed(option: str) -> str:
    return (
        f"{option} belonged to the latent_match of version 0.1 before (commit 0dad059), which is another method than "
        f"today's: use its runs with that commit, or leave the option out and train anew"
    )


def only_read(overrides: list[str], method: str) -> list[str]:
    """The `key=value` overrides without those of options that other methods read and this one does not."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    return [
        override for key, override in zip(keys, overrides, strict=True) if not readers(key) or method in readers(key)
    ]


def refuse_unread(option: str, method: str) -> None:
    """Refuse an option, given by name, that belongs to other methods than this one.

    Raises:
        UserError: The method does not read it; the message says which do.
    """
    reading = readers(option)
    if reading and method not in reading:
        raise UserError(
            f"{option} is not read by method.name={method}, so it would change nothing: leave it out, or take a method "
            f"that reads it ({', '.join(reading)})"
        )


def check_config(values: Any, source: str) -> Config:
    """Build a `Config` from plain values; errors name the key's path and, if it is unknown, a near one."""
    if not isinstance(values, dict):
        raise UserError(f"{source}: expected `key: value` pairs at the top, found {type(values).__name__}")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines: dict[str, list[str]] = {}  # one for each option, whatever the number of types it may have
        for option, message in map(_explain, error.errors()):
            lines.setdefault(option, []).append(message)
        told = (option + "; ".join(dict.fromkeys(messages)) for option, messages in lines.items())
        raise UserError(f"{source}: " + "\n".join(told)) from error


def dump_config(config: Config) -> str:
    """The whole tree as YAML, defaults included."""
    return write_yaml(config.model_dump(mode="json"))


def differences(ours: Config, theirs: Config) -> list[str]:
    """`key: ours, theirs` for each option on which two configurations differ."""
    left, right = flat(ours.model_dump(mode="json")), flat(theirs.model_dump(mode="json"))
    keys = sorted(left.keys() | right.keys())
    return [f"{key}: {left.get(key)} here, {right.get(key)} there" for key in keys if left.get(key) != right.get(key)]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of options by dotted name; an empty section is none."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _read_source(source: str | Path) -> Any:
    name = str(source)
    if name in preset_names():
        return read_yaml(preset_text(name), name) or {}
    path = named_file(name)
    if path is None:
        near = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f"; did you mean the preset {near[0]}?" if near else ""
        raise UserError(
            f"{name} is neither a preset ({', '.join(preset_names())}) nor a YAML file nor a run folder{hint}"
        )
    values = read_yaml_file(path, name)
    return {} if values is None else values  # an empty file: the defaults


def _read_groups(name: str) -> dict[str, list[str]]:
    shipped = group_maps()
    if name in shipped:
        return shipped[name]
    path = named_file(name)
    if path is None:
        raise UserError(
            f"method.groups={name[:100]} is neither identity, nor a shipped map ({', '.join(shipped)}), nor a YAML file"
        )
    return _mapping(read_yaml_file(path, f"method.groups={name}"), name)


def _mapping(groups: Any, source: str) -> dict[str, list[str]]:
    if not isinstance(groups, dict) or not all(isinstance(members, list) for members in groups.values()):
        raise UserError(f"method.groups={source} must hold lines of the form `group: [class, class]`")
    return {str(group): [str(name) for name in members] for group, members in groups.items()}


def option_names(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Dotted names of all options, sections included."""
    names: list[str] = []
    for name, field in section.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += option_names(field.annotation, f"{prefix}{name}.")
    return names


def _known_path(key: str) -> None:
    known = option_names()
    if key not in known and not key.startswith(("data.class_map.", "data.color_map.", "method.groups.")):
        raise UserError(_unknown(key, known))


def _unknown(key: str, known: list[str]) -> str:
    if key in RENAMED:
        return f"{key} is now called {RENAMED[key]}"
    if key.removeprefix("method.") in REMOVED:
        return _removed(key)
    near = difflib.get_close_matches(key, known, n=1)
    same_end = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = (same_end or near)[:1]
    return f"unknown option {key[:100]}" + (f"; did you mean {hint[0]}?" if hint else "")


def _explain(error: Any) -> tuple[str, str]:
    """The beginning of a line, which names the option that pydantic complains about, and what is wrong with it."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return _unknown(key, option_names()), ""
    while key and key not in option_names():
        key = key.rpartition(".")[0]
    value = error.get("input")
    shown = "" if isinstance(value, dict | BaseModel) else f" (value {repr(value)[:100]})"
    return f"{key or 'config'}: ", f"{error['msg'].removeprefix('Value error, ')}{shown}"
