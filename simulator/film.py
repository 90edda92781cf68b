"""A progression as a film: GIF for everywhere, MP4 for slides, pages and posts."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.figure_style import INFECTION_COLOUR, apply_style, new_figure
from simulator.figures import best_slices, plane, plane_aspect, show_plane
from simulator.progression import Frame
from standard_space.errors import DataError, UsageError
from standard_space.files import atomic_path
from standard_space.progress import Progress, silent
from standard_space.scan import Scan

FORMATS = ("gif", "mp4")
CODEC = "libx264"
INSTALL_ENCODER = "install ffmpeg, or `pip install 'lungcast[mp4]'`"

_DPI = {"gif": 80, "mp4": 120}
_PLAYED_AT = 24
"""Frames per second in an MP4, each repeated: some players stumble over fewer."""


def video_encoder() -> str | None:
    """Path of an ffmpeg that writes H.264: the system's, else imageio-ffmpeg's; None without both."""
    found = shutil.which("ffmpeg")
    if found is not None and _writes_h264(found):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        return None
    try:
        return str(get_ffmpeg_exe())
    except RuntimeError:  # the package is of a system that it has no binary for
        return None


@functools.cache
def _writes_h264(ffmpeg: str) -> bool:
    """Whether an ffmpeg was built with the codec; some systems leave it out for its licence."""
    try:
        listed = subprocess.run(
            [ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return CODEC in listed.stdout


def formats_here(wanted: Sequence[str] | None) -> tuple[tuple[str, ...], list[str]]:
    """Which films can be written on this machine.

    Parameters
    ----------
    wanted : sequence of {"gif", "mp4"}, optional
        When absent, a GIF, and an MP4 where there is an encoder.

    Returns
    -------
    formats : tuple of str
    notes : list of str
        What is left out, and the remedy.

    Raises
    ------
    UsageError
        When an MP4 is asked for and there is no encoder, or for another format.
    """
    if wanted is None:
        if video_encoder() is None:
            return ("gif",), [f"the film is a GIF only; for an MP4, {INSTALL_ENCODER}"]
        return FORMATS, []
    unknown = sorted(set(wanted) - set(FORMATS))
    if unknown:
        raise UsageError("no such format of a film", got=", ".join(unknown), expected=" or ".join(FORMATS))
    if "mp4" in wanted and video_encoder() is None:
        raise UsageError(f"an MP4 film needs an ffmpeg with {CODEC}", remedy=INSTALL_ENCODER)
    return tuple(wanted), []


class Film:
    """A progression as a film: only the slices that are shown are kept of each frame.

    Parameters
    ----------
    scan : Scan
        What the progression started from.
    slices : dict, optional
        Index of the slice of each plane; when absent, those that show most of the first frame's infection.
    origin : str
        Where the infection comes from; every frame says it.
    """

    def __init__(
        self, scan: Scan, slices: dict[str, int] | None = None, *, origin: str = "simulated"
    ) -> None:
        self._scan = scan
        self._origin = origin
        self._slices = slices
        self._lungs: dict[str, NDArray[np.bool_]] = {}
        self._frames: list[tuple[float, dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]] = []
        self._volumes_ml: list[float] = []

    def add(self, frame: Frame) -> None:
        """Take a frame's slices."""
        if self._slices is None:
            self._slices = best_slices(self._scan, frame.infection)
        shown = {name: self._slices[name] for name in ("axial", "coronal")}
        if not self._lungs:
            self._lungs = {name: plane(self._scan.lungs, name, index) for name, index in shown.items()}
        signal = {name: plane(frame.signal, name, index).copy() for name, index in shown.items()}
        infection = {name: plane(frame.infection, name, index).copy() for name, index in shown.items()}
        self._frames.append((self._scan.day + frame.days, signal, infection))
        self._volumes_ml.append(float(frame.infection.sum()) * self._scan.grid.voxel_volume_ml)

    def save(self, path: str | Path, frames_per_second: float = 4.0, *, progress: Progress = silent) -> None:
        """Write the film, atomically.

        Parameters
        ----------
        path : str or Path
            Ends with ``.gif`` or ``.mp4``.
        frames_per_second : float
        progress : Progress
            Told of every frame.

        Raises
        ------
        UsageError
            For another ending, and for an MP4 without an encoder.
        DataError
            When ffmpeg fails.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".")
        formats_here((kind,))
        try:
            self._write(path, kind, frames_per_second, progress)
        except Exception as error:
            # A terminal sends Ctrl-C to ffmpeg too, which fails; a writer without a frame fails when it is closed.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            if not isinstance(error, (subprocess.CalledProcessError, BrokenPipeError)):
                raise
            code = getattr(error, "returncode", None)
            raise DataError(
                "ffmpeg could not write the film",
                where=path,
                got="a broken pipe" if code is None else f"exit code {code}",
                remedy="leave MP4 out with --film gif, or install another ffmpeg",
            ) from None

    def _write(self, path: Path, kind: str, frames_per_second: float, progress: Progress) -> None:
        figure, axes = new_figure(11.2, 4.6, 1, 3, width_ratios=[1, 1, 0.8])
        writer = _writer(kind, frames_per_second)
        # ffmpeg takes what stands before a colon in a relative path for a protocol.
        with atomic_path(path) as temporary, writer.saving(figure, str(temporary.absolute()), dpi=_DPI[kind]):
            for number in range(len(self._frames)):
                progress(path.name, number, len(self._frames))
                self._draw(figure, axes[0], number)
                writer.grab_frame()
        progress(path.name, len(self._frames), len(self._frames))

    def _draw(self, figure: Figure, axes: Sequence[Axes], number: int) -> None:
        day, signal, infection = self._frames[number]
        for place, name in zip(axes, signal, strict=False):
            place.clear()
            shown = [(infection[name], INFECTION_COLOUR)]
            aspect = plane_aspect(self._scan, name)
            show_plane(place, signal[name], self._lungs[name], aspect, contours=shown)
            place.set_title(name)
        days = [day for day, _, _ in self._frames]
        curve = axes[len(signal)]
        curve.clear()
        curve.plot(days, self._volumes_ml, color="#BBBBBB")
        curve.plot(days[: number + 1], self._volumes_ml[: number + 1], color=INFECTION_COLOUR)
        curve.plot(day, self._volumes_ml[number], "o", color=INFECTION_COLOUR)
        curve.set_ylim(0, 1.1 * max(*self._volumes_ml, 1e-3))
        curve.set_xlabel("day")
        curve.set_ylabel("infected volume, ml")
        figure.suptitle(
            f"{self._scan.name}: day {day:.2f}, infected {self._volumes_ml[number]:.1f} ml\n"
            f"{self._origin}; for research, not for diagnosis"
        )
        apply_style(figure)


class _Encoder(FFMpegWriter):
    """Matplotlib's writer with the ffmpeg that was found, without touching its global setting."""

    @classmethod
    def bin_path(cls) -> str:
        return video_encoder() or ""


def _writer(kind: str, frames_per_second: float) -> AbstractMovieWriter:
    if kind == "gif":
        return PillowWriter(fps=frames_per_second)  # type: ignore[arg-type]
    reproducible = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1"]
    played = [
        "-pix_fmt",
        "yuv420p",
        "-crf",
        "20",
        "-r",
        str(max(_PLAYED_AT, frames_per_second)),
        "-movflags",
        "+faststart",
    ]
    return _Encoder(fps=frames_per_second, codec=CODEC, extra_args=[*played, *reproducible])  # type: ignore[arg-type]
