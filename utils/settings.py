"""Frozen dataclass <-> command line <-> JSON: every setting declared once, checked alike everywhere."""

import argparse
import dataclasses
import difflib
import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from utils.errors import SettingsError
from utils.files import to_json
from utils.setting_kind import Kind, kind_of

T = TypeVar("T")
_HINTS = {
    "expected one argument": "write --name=value for a value that begins with a dash",
    "ignored explicit argument": "a switch takes no value; write --name or --no_name",
}
"""What to do about a complaint of argparse, by a part of its text."""


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    choices: Iterable[Any] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    may_change: bool = False,
    group: str = "",
) -> Any:
    """Declare one field of a settings class, see `Settings`.

    Args:
        default: value when nothing else gives one; without it the flag is required.
        help: meaning, unit and consequence, for `--help`.
        choices: the only values allowed (a Literal type says the same).
        minimum: inclusive lower limit of a number, or of each element of a tuple; `maximum` likewise.
        maximum: inclusive upper limit.
        above: exclusive lower limit; `below` likewise.
        below: exclusive upper limit.
        may_change: whether a run may be resumed with another value.
        group: heading in `--help` and in `render`; by default `GROUP` of the class that declares the field.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    bounds = {name: limit for name, limit in limits.items() if limit is not None}
    metadata = {"help": help, "choices": tuple(choices), "bounds": bounds, "may_change": may_change, "group": group}
    return dataclasses.field(default=default, metadata=metadata)


def names_that_may_change(cls: type) -> frozenset[str]:
    """The settings that a resumed run need not share."""
    return frozenset(field.name for field in dataclasses.fields(cls) if field.metadata.get("may_change"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of settings classes (``@dataclass(frozen=True, kw_only=True)``): checks types and limits of an instance.

    A class may be composed of others by inheritance. As in every dataclass, fields of the last base then come first.

    Raises:
        SettingsError: naming the setting, its value and what is allowed.
    """

    GROUP: ClassVar[str] = ""
    """Heading of the fields that the class declares, where they name none."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        _checked(type(self), values, source="")


def flags_of(name: str, *parts: type) -> type:
    """A settings class with the fields of others, each declared once: the first part that has a name decides it.

    Nothing else of the parts is inherited, their checks of values that go together in particular.

    Args:
        name: of the class.
        parts: settings classes.
    """
    fields: dict[str, tuple[str, Any, Any]] = {}
    for part in parts:
        hints = typing.get_type_hints(part)
        for field in dataclasses.fields(part):
            metadata = {**field.metadata, "group": _heading(part, field)}
            again = dataclasses.field(default=field.default, metadata=metadata)
            fields.setdefault(field.name, (field.name, hints[field.name], again))
    return dataclasses.make_dataclass(name, fields.values(), bases=(Settings,), frozen=True, kw_only=True)


def _heading(cls: type, field: dataclasses.Field) -> str:
    """The group of a field, or else that of the class that declares it."""
    declaring = next(base for base in cls.__mro__ if field.name in vars(base).get("__annotations__", ()))
    return str(field.metadata.get("group") or getattr(declaring, "GROUP", ""))


def _kinds(cls: type) -> dict[str, Kind]:
    """The kind of every field, by name, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: kind_of(
            hints[field.name], choices=field.metadata.get("choices", ()), bounds=field.metadata.get("bounds", {})
        )
        for field in dataclasses.fields(cls)
    }


def _closest(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    """The middle of a sentence that suggests up to three names, or nothing."""
    matches = difflib.get_close_matches(name, list(allowed), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(prefix + match for match in matches)}?" if matches else "."


class _Store(argparse.Action):
    """Convert and keep the value of a flag, or refuse it in a sentence that names the flag."""

    def __init__(self, *args: Any, kind: Kind, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if self.kind.is_switch:
            setattr(namespace, self.dest, option == f"--{self.dest}")
            return
        try:
            setattr(namespace, self.dest, self.kind.from_text(values))
        except ValueError:
            raise SettingsError(self.kind.refusal(f"--{self.dest}", values)) from None


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add one flag per field of a settings class, named after it with underscores (`--steps_per_epoch`).

    A switch has `--x` and both `--no_x` and `--no-x`. A flag that is not given leaves no attribute in the
    namespace, which tells it from one given with its default.

    Raises:
        SettingsError: later, while parsing, for a value that is not allowed.
    """
    groups: dict[str, Any] = {"": parser}
    kinds = _kinds(cls)
    for field in dataclasses.fields(cls):
        kind, name, heading = kinds[field.name], field.name, _heading(cls, field)
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        default = "required" if field.default is dataclasses.MISSING else f"default: {_shown(field.default)}"
        text = f"{field.metadata.get('help', '')} ({kind.describe()}; {default})".strip()
        flags = [f"--{name}", *([f"--no_{name}", f"--no-{name}"] if kind.is_switch else [])]
        groups[heading].add_argument(
            *flags,
            action=_Store,
            kind=kind,
            nargs=0 if kind.is_switch else None,
            metavar=None if kind.is_switch else name.upper(),
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
        )


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are `SettingsError`, so that every user error looks the same."""

    def error(self, message: str) -> typing.NoReturn:
        for complaint, hint in _HINTS.items():
            if complaint in message:
                message += f" ({hint})"
        raise SettingsError(f"{message[:1].upper()}{message[1:]}; `{self.prog} --help` describes every flag.")


def parse(
    cls: type[T],
    argv: Sequence[str] | None = None,
    *,
    preset_dir: str | Path | None = None,
    description: str | None = None,
    elsewhere: Mapping[str, str] | None = None,
) -> T:
    """Resolve the settings of a program: defaults, then the preset file, then flags, the later winning.

    Args:
        cls: settings class; if it has a field `preset`, `--preset NAME` (or that field's default) reads
            ``preset_dir/NAME.json``.
        argv: arguments without the program's name; None takes those of the process. DeepSpeed's
            `--local_rank` is dropped.
        preset_dir: folder of the presets.
        description: first paragraph of `--help`.
        elsewhere: flags of other programs, without dashes, and what to give here in their place.

    Raises:
        SettingsError: for an unknown flag, preset or key, a value not allowed, or a missing required flag.
    """
    available = ", ".join(_presets_in(preset_dir))
    epilog = f"Presets in {preset_dir}: {available}." if available else None
    parser = _Parser(description=description, epilog=epilog, allow_abbrev=False)
    add_arguments(parser, cls)
    # Of DeepSpeed's launcher; the same number is in the environment.
    parser.add_argument("--local_rank", "--local-rank", nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        raise SettingsError(_unknown_flag(unknown, cls, parser.prog, elsewhere or {}))
    flags = vars(given)
    flags.pop("local_rank", None)
    values = {**_preset_values(cls, flags, preset_dir), **flags}
    if missing := _missing(cls, values):
        raise SettingsError(
            f"--{missing[0]} is required and was not given; `{parser.prog} --help` describes every flag."
        )
    return from_dict(cls, values)


def _unknown_flag(unknown: Sequence[str], cls: type, program: str, elsewhere: Mapping[str, str]) -> str:
    flag = next((word for word in unknown if word.startswith("-")), None)
    listing = f"`{program} --help` lists every flag."
    if flag is None:
        return (
            f"{unknown[0]!r} is not expected here: a value follows its flag as --name value, "
            f"and a switch is --name or --no_name alone. {listing[0].upper() + listing[1:]}"
        )
    name = flag.split("=", 1)[0]
    if name.lstrip("-") in elsewhere:
        return f"{name} is a flag of LISA's; here: {elsewhere[name.lstrip('-')]} (docs/from_lisa.md)."
    kinds = _kinds(cls)
    names = [*kinds, *(f"no_{field}" for field, kind in kinds.items() if kind.is_switch)]
    return f"There is no flag {name}{_closest(name.lstrip('-').replace('-', '_'), names, '--')} {listing}"


def _presets_in(preset_dir: str | Path | None) -> list[str]:
    return sorted(path.stem for path in Path(preset_dir).glob("*.json")) if preset_dir is not None else []


def _preset_values(cls: type, flags: Mapping[str, Any], preset_dir: str | Path | None) -> dict[str, Any]:
    """Read the preset that the flags, or else the class, name."""
    name = flags.get("preset", getattr(cls, "preset", None))
    if name is None:
        return {}
    if preset_dir is None:
        raise SettingsError(f"--preset is {name!r}, but this program has no presets.")
    available = _presets_in(preset_dir)
    if name not in available:
        raise SettingsError(
            f"There is no preset {name!r}{_closest(name, available)} The folder {preset_dir} holds: "
            f"{', '.join(available) or 'none'}."
        )
    values = read_settings_file(cls, Path(preset_dir) / f"{name}.json")
    if "preset" in values:
        raise SettingsError(f"The preset {name}.json holds the key 'preset'; a preset cannot name another.")
    return values


def read_settings_file(cls: type, path: str | Path) -> dict[str, Any]:
    """Read and check the settings that a JSON file gives, which need not be all of them.

    Raises:
        SettingsError: if the file is not a JSON object, or a key or value in it is not allowed.
        FileNotFoundError: if it does not exist.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"The file {path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The file {path} must hold one JSON object of settings, not {type(values).__name__}.")
    return _checked(cls, values, source=f"In {path}, ")


def _checked(cls: type, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    kinds = _kinds(cls)
    checked = {}
    for name, value in values.items():
        if name not in kinds:
            raise SettingsError(
                f"{source}{name!r} is not a setting{_closest(name, kinds)} "
                f"The fields of {cls.__name__} are the list, which --help shows."
            )
        try:
            checked[name] = kinds[name].from_json(value)
        except ValueError:
            raise SettingsError(source + kinds[name].refusal(name, value, from_json=True)) from None
    return checked


def _missing(cls: type, values: Mapping[str, Any]) -> list[str]:
    fields = dataclasses.fields(cls)
    return [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in values]


def to_dict(settings: Any) -> dict[str, Any]:
    """Every setting by name, as JSON holds it; `from_dict` reads it back."""
    return dict(to_json(settings))


def from_dict(cls: type[T], values: Mapping[str, Any], *, source: str = "") -> T:
    """Build settings from a mapping such as a run's `config.json`.

    A setting that is absent takes its default; an unknown name or a value of wrong type or range is refused.

    Args:
        cls: settings class.
        values: setting by name.
        source: beginning of the error sentence that says where the values came from, e.g. "In config.json, ".

    Raises:
        SettingsError: naming the setting, its value and what is allowed.
    """
    if missing := _missing(cls, values):
        raise SettingsError(f"{source}the setting {missing[0]!r} is required and is absent.")
    checked = _checked(cls, values, source)
    try:
        return cls(**checked)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(str(element) for element in value) or "(empty)"
    return "none" if value is None else str(value)


def render(settings: Any) -> str:
    """Align all settings under their headings; a star and the default mark those that differ from it."""
    fields = dataclasses.fields(settings)
    names = max(len(field.name) for field in fields)
    shown = {field.name: _shown(getattr(settings, field.name)) for field in fields}
    width = min(max(len(text) for text in shown.values()), 32)
    lines, heading = [], ""
    for field in fields:
        group = _heading(type(settings), field)
        if group != heading:
            lines.append(f"{group or 'other'}:")
            heading = group
        differs = field.default is not dataclasses.MISSING and getattr(settings, field.name) != field.default
        star, note = ("*", f"(default {_shown(field.default)})") if differs else (" ", "")
        lines.append(f"{star} {field.name:<{names}}  {shown[field.name]:<{width}}  {note}".rstrip())
    return "\n".join(lines)


def as_flag(name: str, value: Any) -> str:
    """The flag that gives a setting a value, as one types it."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no_{name}"
    return f"--{name} {_shown(value)}"
