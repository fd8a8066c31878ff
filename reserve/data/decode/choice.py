"""Which decoder to use, by machine and by file, with the reasons against those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reserve.data.decode.protocol import BatchDecoder, Decoder, FileDecoder, MediaInfo


@dataclass(frozen=True, slots=True)
class PassedOverDecoder:
    """A decoder that would have come first, and why it did not."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class DecoderChoice:
    """The decoder for a file, and those before it in the order with the reason against each."""

    decoder: Decoder
    passed_over: tuple[PassedOverDecoder, ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(map(str, self.passed_over))
        return f"{self.decoder.name} ({reasons})" if reasons else self.decoder.name


@dataclass(frozen=True, slots=True)
class Candidates:
    """The decoders that can run on this machine for the one that is asked for, in the order in which files try them,
    and those that the machine rules out. The last of `decoders` opens files one by one."""

    decoders: tuple[Decoder, ...]
    passed_over: tuple[PassedOverDecoder, ...] = ()

    @classmethod
    def of(cls, table: Sequence[Decoder], requested: str) -> Candidates:
        """ "auto" takes every decoder of `table` that can run here and is not known to be slower than the next one. The
        name of one takes it, and for the files that it is not for what auto would take.

        Raises ValueError for an unknown name, and RuntimeError with the reasons if no such decoder can run here.
        """
        named = [decoder.by_name() for decoder in table if decoder.name == requested]
        if requested != "auto" and not named:
            allowed = ", ".join(repr(decoder.name) for decoder in table)
            raise ValueError(f"decoder must be 'auto' or one of {allowed}; got {requested!r}")
        if named and (reason := named[0].unavailable()) is not None:
            raise RuntimeError(_cannot_run(PassedOverDecoder(requested, reason)))
        found: list[Decoder] = list(named)
        against: list[PassedOverDecoder] = []
        for decoder in table:
            if decoder.name == requested or (named and isinstance(decoder, BatchDecoder)):
                continue
            reason = decoder.unavailable() or decoder.slow_here()
            if reason is None:
                found.append(decoder)
            else:
                against.append(PassedOverDecoder(decoder.name, reason))
        if not any(isinstance(decoder, FileDecoder) for decoder in found):
            raise RuntimeError("; ".join(map(_cannot_run, against)) or "there is no decoder that opens files")
        return cls(tuple(found), tuple(against))

    @property
    def files(self) -> tuple[FileDecoder, ...]:
        """Those that open files: they give the sound and text, and the frames that no decoder of batches gives."""
        return tuple(decoder for decoder in self.decoders if isinstance(decoder, FileDecoder))

    def choose(self, info: MediaInfo) -> DecoderChoice:
        """The first decoder for the pictures of a file of these streams; the last one if all are unsuited."""
        against: list[PassedOverDecoder] = []
        for decoder in self.decoders[:-1]:
            reason = decoder.unsuited(info)
            if reason is None:
                return DecoderChoice(decoder, tuple(against))
            against.append(PassedOverDecoder(decoder.name, reason))
        return DecoderChoice(self.decoders[-1], tuple(against))


def _cannot_run(decoder: PassedOverDecoder) -> str:
    return f"decoder {decoder.name!r} cannot run: {decoder.reason}"
