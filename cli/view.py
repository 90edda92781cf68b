"""The commands `view` and `report`: scans, infections and progressions in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.console import WITH_FORCE, Console, count, example, force_option, shared_options
from cli.options import FILE

if TYPE_CHECKING:
    from segmentation.viewer.cases import Case

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--image", type=FILE, help="Of a segmentation result: the scan that it was made from."),
    click.option("--infection", type=FILE, help="Of an image: the mask of its infection."),
    click.option("--lungs", type=FILE, help="Of an image: its lungs."),
    click.option(
        "--sources", type=FILE, help="Of an augmented folder: its cohort, where it is not beside it."
    ),
    click.option("--patient", "patients", multiple=True, help="Of a cohort: only this patient; repeatable."),
    click.option(
        "--consolidation-hu", default=-200.0, show_default=True, help="Clinical cut to consolidation, HU."
    ),
    click.option(
        "--voxels",
        type=click.IntRange(32, 512),
        default=256,
        show_default=True,
        help="Along each axis at most; what is larger is shown coarser.",
    ),
    click.option(
        "--frames",
        type=click.IntRange(2),
        default=25,
        show_default=True,
        help="Times of a simulation at most, evenly chosen.",
    ),
)


def _shared(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(epilog=example("lungcast view out/cohort out/simulation"))
@click.argument("paths", type=FILE, nargs=-1, required=True)
@_shared
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="A free one unless given.")
@click.option("--once", is_flag=True, help="End when the first visitor has gone, or when none came.")
@click.option(
    "--patience",
    "patience_s",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="With --once: seconds to wait for a visitor.",
)
@shared_options()
def view(
    console: Console,
    paths: tuple[Path, ...],
    no_browser: bool,
    port: int,
    once: bool,
    patience_s: float,
    voxels: int,
    frames: int,
    **given: Any,
) -> None:
    """Look at PATHS in a browser: three planes and 3D, infection and lungs, a day slider, curves.

    A path is a cohort, an augmented folder, a simulation, a segmentation result (with --image), a demo, a scan
    file, an image file or a DICOM folder. The page is for this machine alone (127.0.0.1), under an address nobody
    can guess, and asks nothing of the internet. It is served until Ctrl-C.
    """
    import webbrowser

    from segmentation.viewer.server import ViewerServer

    cases = _cases(paths, frames, given)
    with ViewerServer(cases, title=_title(paths), most=voxels, port=port) as server:
        click.echo(server.address)
        if not no_browser and not webbrowser.open(server.address):
            console.note("no browser was found: open the address yourself")
        if once:
            if not server.wait_for_one_visit(patience_s):
                console.note(f"nobody came within {patience_s:g} s")
            return
        console.note("Ctrl-C ends the viewer")
        try:
            server.wait()
        except KeyboardInterrupt:
            console.note("the viewer has ended")


@click.command(epilog=example("lungcast report out/cohort out/simulation --html report"))
@click.argument("paths", type=FILE, nargs=-1, required=True)
@click.option(
    "--html", "folder", type=FILE, required=True, help="Folder to write: a page that opens offline."
)
@_shared
@force_option
@shared_options(WITH_FORCE)
def report(
    console: Console,
    paths: tuple[Path, ...],
    folder: Path,
    voxels: int,
    frames: int,
    force: bool,
    **given: Any,
) -> None:
    """Write what `lungcast view` shows of PATHS as one folder, for somebody who has nothing installed.

    Open its index.html in a browser; no server and no internet are needed. It holds the volumes themselves and the
    names that the manifest gives to patients and scans: who gets the folder gets them.
    """
    from segmentation.viewer.site import write_site
    from standard_space.files import prepare_output_folder, write_mark
    from standard_space.folders import check_apart
    from standard_space.version import lungcast_version

    cases = _cases(paths, frames, given)
    check_apart(folder, list(paths))
    prepare_output_folder(folder, "report", force=force)
    with console.progress("report") as progress:
        failures = write_site(folder, cases, title=_title(paths), most=voxels, progress=progress)
    write_mark(folder, "report", {"lungcast_version": lungcast_version(), "complete": True})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    total = sum(len(case.frames) for case in cases)
    shown = f"{count(total, 'scan')} of {count(len(cases), 'case')}"
    console.say(f"{shown}, {size / 1e6:.0f} MB. Open in a browser:")
    console.wrote({"report": folder / "index.html"})
    console.finish(failures)


def _cases(paths: tuple[Path, ...], frames: int, given: dict[str, Any]) -> list[Case]:
    from segmentation.viewer.cases import thinned
    from segmentation.viewer.sources import Shown, cases_of
    from standard_space.errors import UsageError

    one_each = {name: given[name] for name in ("image", "infection", "lungs") if given[name] is not None}
    if one_each and len(paths) != 1:
        raise UsageError(
            f"--{next(iter(one_each))} belongs to one path", got=f"{len(paths)} paths", remedy="name one path"
        )
    shown = Shown(
        given["image"],
        given["infection"],
        given["lungs"],
        given["sources"],
        given["patients"],
        given["consolidation_hu"],
    )
    return [thinned(case, frames) for path in paths for case in cases_of(path, shown)]


def _title(paths: tuple[Path, ...]) -> str:
    return "lungcast: " + ", ".join(path.resolve().name for path in paths)
