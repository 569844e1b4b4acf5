"""What an export tells of itself."""

import dataclasses
from pathlib import Path

from keras_trgl.recording import shown, told
from keras_trgl.registration import public


@public
@dataclasses.dataclass(frozen=True, repr=False)
class ExportReport:
    """What was exported, and how it was checked; prints as a short text.

    Args:
        path: path of the version folder or file.
        bytes: int ≥ 0. Bytes on disk.
        max_difference: float ≥ 0. Largest difference of an output from the live model's, in the
            output's unit, on the sample it was checked with; NaN where none was.
        numbers: int ≥ 0. Numbers in the weights stored, or 0 where the format does not tell.
            Defaults to `0`.
        version: int ≥ 0. The version's number, or 0 for a file. Defaults to `0`.
        signatures: tuple of str. Names of the signatures. Defaults to `()`.
        warmup_requests: int ≥ 0. Requests in the warm-up file. Defaults to `0`.
        agreement: float in [0, 1]. Share of the sample whose likeliest class is the live
            model's. Defaults to `1.0`.
        checked_in: str. The runtime of the check. Defaults to `"TensorFlow"`.

    Example:
        >>> from keras_trgl.export import ExportReport
        >>> print(ExportReport(path="serving/1", bytes=2048, max_difference=0.0, version=1))
        serving/1: 2,048 bytes; differs by at most 0.0e+00 in TensorFlow
    """

    path: str | Path
    bytes: int
    max_difference: float
    numbers: int = 0
    version: int = 0
    signatures: tuple[str, ...] = ()
    warmup_requests: int = 0
    agreement: float = 1.0
    checked_in: str = "TensorFlow"

    def __repr__(self) -> str:
        return shown(self, **(told(self) | {"path": str(self.path)}))

    def __str__(self) -> str:
        stored = f", {self.numbers:,} numbers" if self.numbers else ""
        lines = [
            f"{self.path}: {self.bytes:,} bytes{stored}; differs by at most "
            f"{self.max_difference:.1e} in {self.checked_in}"
        ]
        if self.signatures:
            lines.append(f"signatures: {', '.join(self.signatures)}")
        if self.warmup_requests:
            lines.append(f"warm-up requests: {self.warmup_requests}")
        return "\n".join(lines)
