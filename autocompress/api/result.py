"""What a search found: the front, pictures, exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.api.bundle import Bundle
from autocompress.api.points import Point, Points, point_of
from autocompress.errors import InputError, NoPointError, unknown_name
from autocompress.export.choose import choose_point
from autocompress.objective import all_costs
from autocompress.option_readers import drop, number, whole_number
from autocompress.run_record import RunRecord, TrialRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from torch import nn

_BEST = {cost.best: cost.name for cost in all_costs()}
_CHOICES = ("knee", *_BEST)


def _number_of(point: int | Point) -> int:
    """The number of a trial that was named by it, or as a point."""
    return point.trial if isinstance(point, Point) else whole_number("trial", point)


class Result:
    """A run as it was when it was opened.

    Attributes:
        run: Everything that is known of it.
    """

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        self._opened: Any = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.folder

    @property
    def front(self) -> Points:
        """What nothing else beats, most accurate first."""
        return Points(self.run, self.run.front())

    @property
    def trials(self) -> Points:
        """Every trial, also those that failed or were stopped early."""
        return Points(self.run, self.run.trials)

    @property
    def refined(self) -> Points:
        """Trials that were trained in full."""
        return Points(self.run, self.run.refined)

    @property
    def baseline(self) -> Point | None:
        """The original model."""
        return None if self.run.baseline is None else point_of(self.run, self.run.baseline)

    @property
    def knee(self) -> Point:
        """The front's best trade-off.

        Raises:
            NoPointError: If nothing keeps the limits, or has been measured.
        """
        return point_of(self.run, self._chosen("knee"))

    def best(self, max_drop: float | str = 0.01, by: str = "size") -> Point:
        """The smallest point that loses at most so much accuracy; refined ones count.

        Args:
            max_drop: Accuracy that it may lose against the original model: 0.01, "1%" or "1pt".
            by: `size` or `latency`: what is made smallest.

        Raises:
            NoPointError: If there is none.
        """
        return point_of(self.run, self._within(max_drop, by))

    def plot(self, kind: str | None = None) -> go.Figure:
        """A figure of the run, interactive in notebooks.

        Args:
            kind: `size` or `latency` (accuracy against it), `hypervolume` or `choices`; the first
                that there is by default.

        Raises:
            NoPointError: If there is nothing to draw yet.
            InputError: If there is no such figure.
        """
        from autocompress.report.pictures import run_figures

        figures = run_figures(self.run)
        if not figures:
            raise NoPointError(f"The run {self.run.name!r} has no measured point yet.")
        if kind is not None and kind not in figures:
            raise unknown_name("figure", kind, figures)
        return figures[kind or next(iter(figures))]

    def report(self, path: str | Path | None = None) -> Path:
        """Write the whole report as one offline HTML page.

        Args:
            path: Where to; `report.html` in the run folder by default.

        Raises:
            InputError: If it cannot be written.
        """
        from autocompress.report.page import write_report
        from autocompress.runs.repeats import find_repeats

        written = self.folder / "report.html" if path is None else Path(path).expanduser()
        write_report(self.run, written, find_repeats(self.run))
        return written

    def export(
        self,
        which: str | int | Point = "knee",
        output: str | Path | None = None,
        *,
        runtimes: Sequence[str] = (),
        max_drop: float | str | None = None,
        has_weights: bool = False,
    ) -> Bundle:
        """Write a point as a verified bundle; the only time that the test split is read.

        Args:
            which: `knee`, `smallest`, `fastest`, the number of a trial, or a point.
            output: Folder of the bundle; in the run folder by default.
            runtimes: Write files for these as well.
            max_drop: For `smallest` and `fastest`: accuracy that it may lose.
            has_weights: Whether to write the weights by PyTorch's names as well.

        Raises:
            InputError: If there is no such point or runtime, or the folder cannot be written.
            NoPointError: If no point keeps what is asked.
        """
        from autocompress.export.bundle import export_point
        from autocompress.runtime.registry import find_runtime

        point = self._chosen(which, max_drop)
        names = (runtimes,) if isinstance(runtimes, str) else tuple(runtimes)
        for name in names:
            find_runtime(name)
        usual = self.folder / "exports" / f"trial_{point.number:05d}"
        folder = usual if output is None else Path(output).expanduser()
        prepared, evaluator = self._reopened()
        manifest = export_point(
            self.run, point, prepared, evaluator, folder, names, has_weights=has_weights
        )
        return Bundle(folder=folder, manifest=manifest)

    def refine(
        self,
        *which: int | Point,
        top: int = 0,
        teacher: nn.Module | None = None,
        patience: int = 10,
        minutes: float | None = None,
        seed: int = 0,
        quiet: bool = False,
        **recipe: Any,
    ) -> Result:
        """Train points in full; the same call again goes on where one was stopped.

        Args:
            which: Numbers of trials, or points.
            top: Members of the front that dominate most, beside those; 3 if none is named.
            teacher: What to distill from instead of the original model.
            patience: Epochs without a better accuracy after which one ends.
            minutes: Time for each.
            seed: Of the refinements.
            quiet: No progress.
            recipe: Fields of the recipe, such as `epochs=10`.

        Returns:
            The run with its refined points.

        Raises:
            InputError: If a point, a number or a field cannot be used.
            NoPointError: If there is nothing to refine, or every refinement failed.
        """
        from autocompress.terminal.refine_progress import refine_points
        from autocompress.train.presets import check_field_names

        numbers = tuple(_number_of(point) for point in which)
        if whole_number("top", top) < 0:
            raise InputError(f"`top` must be at least 0, but got {top}.")
        whole_number("patience", patience)
        whole_number("seed", seed)
        check_field_names("recipe", recipe)
        if minutes is not None:
            number("minutes", minutes)
            if "epochs" in recipe:
                raise InputError("`minutes` sets the epochs, but `epochs` sets them as well.")
        refine_points(
            self.run,
            numbers=numbers,
            top=top if top or numbers else 3,
            quiet=quiet,
            fields=recipe,
            patience=patience,
            minutes=minutes,
            teacher=teacher,
            seed=seed,
        )
        return self.reload()

    def reload(self) -> Result:
        """The run as it is now."""
        from autocompress.study.records import load_run

        return Result(load_run(self.folder))

    def _chosen(self, which: str | int | Point, max_drop: float | str | None = None) -> TrialRecord:
        if isinstance(which, str) and which not in _CHOICES:
            raise unknown_name("point", which, (*_CHOICES, "the number of a trial"))
        if isinstance(which, str) and which in _BEST:
            return self._within("100%" if max_drop is None else max_drop, _BEST[which])
        if max_drop is not None:
            raise InputError(f"`max_drop` goes with {' and '.join(map(repr, _BEST))} only.")
        return choose_point(self.run, trial=None if isinstance(which, str) else _number_of(which))

    def _within(self, max_drop: float | str, by: str) -> TrialRecord:
        names = [cost.name for cost in all_costs()]
        if by not in names:
            raise unknown_name("cost", by, names)
        return choose_point(self.run, max_drop=drop("max_drop", max_drop), by=by)

    def _reopened(self) -> Any:
        """The task and its evaluator, loaded once."""
        from autocompress.study.session import reopen

        if self._opened is None:
            self._opened = reopen(self.run)
        return self._opened

    def __repr__(self) -> str:
        n_front = len(self.run.front())
        return f"Result({str(self.folder)!r}: {self.run.n_finished} trials, {n_front} on the front)"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        """The front as a table, and the figure below it."""
        from autocompress.api.points import figure_html

        picture = figure_html(self.plot()) if self.run.complete else ""
        return f"{self.front._repr_html_()}{picture}"
