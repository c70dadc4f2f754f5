"""What a worker says about its member, as frozen types, and the codec that writes them as lines of JSON and reads
them back. The journal holds these very objects; `tune_rh.record.events` adds the driver's own under the same codec.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import ConfigDict, Field, GetPydanticSchema, PlainSerializer, TypeAdapter, ValidationError
from pydantic_core import core_schema

T = TypeVar("T")


def _spelt(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _finite(value: Mapping[str, Any]) -> Mapping[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMBER = core_schema.union_schema(
    [
        core_schema.float_schema(strict=True, allow_inf_nan=False),
        # One object for every NaN: records with the same non-finite metrics are equal.
        core_schema.no_info_after_validator_function(
            _NON_FINITE.__getitem__, core_schema.literal_schema(list(_NON_FINITE))
        ),
    ],
    mode="left_to_right",
    custom_error_type="number",
    custom_error_message="Input should be a number, 'NaN', 'Infinity' or '-Infinity'",
    # Not `ser_json_inf_nan`: pydantic takes it from the outermost type alone, and writes null inside of others.
    serialization=core_schema.plain_serializer_function_ser_schema(_spelt, when_used="json"),
)
Number = Annotated[float, GetPydanticSchema(lambda _source, _handler: _NUMBER)]
"""A float whose non-finite values are strings in JSON, which has no others for them."""
Fields = Annotated[Mapping[str, Any], PlainSerializer(_finite)]
"""The JSON fields of a config; a number that is not finite is refused, for it would be read back as something else."""


class Message:
    """Base of the dataclasses that are written as JSON: strict, no unknown keys, the same inside one another."""

    __slots__ = ()
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")


_MEMBER = re.compile(r"(c\d{4,9})-s(\d{1,19})", re.ASCII)  # it becomes the name of a folder


class MemberId(NamedTuple):
    """A candidate with one seed; written ``c0007-s42``."""

    candidate: str
    seed: int

    def __str__(self) -> str:
        return f"{self.candidate}-s{self.seed}"

    @classmethod
    def parse(cls, text: str) -> MemberId:
        """The inverse of ``str``; raises ValueError on anything else."""
        match = _MEMBER.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no member: it is written c0007-s42")
        return cls(match[1], int(match[2]))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        parsed = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema(strict=True))
        made = core_schema.is_instance_schema(cls)
        written = core_schema.plain_serializer_function_ser_schema(cls.__str__, return_schema=core_schema.str_schema())
        return core_schema.json_or_python_schema(parsed, made, serialization=written)


@dataclass(frozen=True, slots=True)
class HealthFinding(Message):
    """A rule of live health was broken at ``step``; said once, until it holds again."""

    rule: str
    step: int
    message: str

    def __str__(self) -> str:
        return f"{self.rule} at step {self.step}: {self.message}"


@dataclass(frozen=True, slots=True)
class Evaluated(Message):
    """A member was trained to ``step`` and evaluated.

    Attributes:
        findings: those of live health since the report before.
        repeated_s: seconds that went, since the report before, into steps that a lost worker had reported already.
    """

    event: Literal["Evaluated"] = field(default="Evaluated", kw_only=True)
    member: MemberId
    step: int
    metrics: Mapping[str, Number]
    train_s: Number
    eval_s: Number
    diverged: bool = False
    findings: Annotated[tuple[HealthFinding, ...], Field(exclude_if=operator.not_)] = ()
    repeated_s: Annotated[Number, Field(exclude_if=operator.not_)] = 0.0


@dataclass(frozen=True, slots=True)
class Tested(Message):
    """The one reading of the test split: the best checkpoint's metrics on val and test."""

    event: Literal["Tested"] = field(default="Tested", kw_only=True)
    member: MemberId
    step: int
    metrics: Mapping[str, Number]
    eval_s: Number


@dataclass(frozen=True, slots=True)
class Diagnosed(Message):
    """A member's best checkpoint was diagnosed: diagnostic -> verdict. The findings lie in the member's folder."""

    event: Literal["Diagnosed"] = field(default="Diagnosed", kw_only=True)
    member: MemberId
    step: int
    verdicts: Mapping[str, str]
    seconds: Number


@dataclass(frozen=True, slots=True)
class HandedBack(Message):
    """The stop request came before the next evaluation: the member is saved at ``step``, with no new metrics."""

    event: Literal["HandedBack"] = field(default="HandedBack", kw_only=True)
    member: MemberId
    step: int


Report = Evaluated | Tested | Diagnosed | HandedBack


class Codec(Generic[T]):
    """Writes a union of frozen `Message`s as strict JSON and reads them back, told apart by their field ``event``."""

    def __init__(self, union: Any) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(Annotated[union, Field(discriminator="event")])

    def encode(self, value: T) -> str:
        """One line of ASCII without a newline."""
        return self._adapter.dump_json(value, ensure_ascii=True, warnings="error").decode()

    def decode(self, line: str | bytes) -> T:
        """The inverse of `encode`; raises ValueError naming what is wrong with anything else."""
        try:
            return self._adapter.validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{place}: {message}" if place else message) from error


REPORTS: Codec[Report] = Codec(Report)
