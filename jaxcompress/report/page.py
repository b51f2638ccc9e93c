"""HTML pages that need nothing else: no network, no script, no second file."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from jaxcompress import files
from jaxcompress.report.drawing import png_size
from jaxcompress.report.numbers import NA
from jaxcompress.report.sections import Section
from jaxcompress.report.tables import table

__all__ = ["Passage", "experiment_page", "figure", "publish", "render", "settings"]


class Passage(NamedTuple):
    """Text around a word that is marked."""

    before: str
    marked: str
    after: str = ""


def experiment_page(
    title: str,
    *,
    summary: Sequence[str] = (),
    figures: Sequence[Mapping[str, Any]] = (),
    tables: Mapping[str, Section] | None = None,
    passages: Mapping[str, Sequence[Passage]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> str:
    """What an experiment found, as the text of an HTML file.

    Args:
      title: what was asked.
      summary: sentences that answer it.
      figures: made by `figure`.
      tables: by heading.
      passages: texts with a marked word, by heading.
      config: settings of the run, for the footer.

    Example:
      >>> "<h1>Heads</h1>" in experiment_page("Heads", summary=["Half of them can go."])
      True
    """
    sections = [
        {"title": name, "columns": one.columns, "rows": one.rows, "note": one.note}
        for name, one in (tables or {}).items()
    ]
    return render(
        "experiment.html.j2",
        title=title,
        summary=list(summary),
        figures=list(figures),
        tables=sections,
        passages=dict(passages or {}),
        settings=settings(config or {}),
    )


def publish(
    directory: str | Path,
    title: str,
    *,
    figures: Mapping[str, tuple[bytes, str, str]],
    tables: Mapping[str, Section],
    summary: Sequence[str] = (),
    passages: Mapping[str, Sequence[Passage]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> str:
    """Writes the figures as PNG files and the page as `report.html`.

    Args:
      directory: run folder.
      title: what was asked.
      figures: by file name without ending: PNG, what it shows, caption.
      tables: by heading.
      summary: sentences that answer the question.
      passages: see `experiment_page`.
      config: settings of the run, for the footer.

    Returns:
      The tables and the path of the page, for the terminal.

    Example:
      >>> import tempfile
      >>> from jaxcompress.report.drawing import message
      >>> folder, one = tempfile.mkdtemp(), Section(("model", "loss"), (("a", "1"),))
      >>> print(publish(folder, "Loss", figures={"loss": (message("none"), "Loss", "")},
      ...               tables={"Losses": one}).splitlines()[-1].endswith("report.html"))
      True
    """
    directory, drawn = Path(directory), []
    for name, (png, alt, caption) in figures.items():
        files.write_bytes(directory / f"{name}.png", png)
        drawn.append(figure(png, alt, caption))
    page = experiment_page(
        title, summary=summary, figures=drawn, tables=tables, passages=passages, config=config
    )
    files.write_text(directory / "report.html", page)
    blocks = [f"{name}\n{table(one.columns, one.rows)}\n{one.note}" for name, one in tables.items()]
    return "\n\n".join([*map(str.rstrip, blocks), f"Report: {directory / 'report.html'}"])


def render(template: str, **values: Any) -> str:
    """A template of this folder, filled in; all text from the data is escaped.

    Example:
      >>> page = render("experiment.html.j2", title="a < b", summary=[], figures=[], tables=[],
      ...               settings=[])
      >>> "a &lt; b" in page
      True
    """
    return _environment().get_template(template).render(**values)


def figure(png: bytes, alt: str, caption: str = "") -> dict[str, Any]:
    """A PNG as a data URI, with its size in CSS pixels.

    Args:
      png: made by `drawing.png`.
      alt: what the figure shows, for who cannot see it.
      caption: to stand below it.

    Example:
      >>> from jaxcompress.report.drawing import message
      >>> figure(message("none"), "nothing")["uri"][:22]
      'data:image/png;base64,'
    """
    width, height = png_size(png)
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    return {"uri": uri, "width": width, "height": height, "alt": alt, "caption": caption}


def settings(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values for the footer, mappings spelt out.

    Example:
      >>> settings({"tasks": ["ioi", "months"], "data": {"seed": 0, "text": {"rows": [1, 2]}}})
      [('tasks', 'ioi, months'), ('data', 'seed=0, text.rows=[1, 2]')]
    """
    return [(str(key), _plain(value)) for key, value in values.items() if key != "command"]


@functools.cache
def _environment() -> jinja2.Environment:
    def source(name: str) -> str:
        return resources.files("jaxcompress.report").joinpath(name).read_text(encoding="utf-8")

    # Undefined names are errors, so that a slip in the template cannot become a hole in the page.
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"together": _together, "text_columns": _text_columns}
    return environment


def _together(text: Any) -> str:
    """A number and its percent sign stay on one line."""
    return str(text).replace(" %", "\N{NO-BREAK SPACE}%")


def _text_columns(rows: Iterable[Sequence[str]]) -> list[int]:
    """Columns of words, to be set flush left: no cell begins with a number or is "n/a"."""
    numeric = re.compile(rf"[-+\u2212<>~]?\s?[.\d]|{NA}$")
    columns = enumerate(zip(*rows, strict=True))
    return [i for i, cells in columns if not any(numeric.match(str(cell)) for cell in cells)]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_entries(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return NA if value is None else str(value)


def _entries(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`name=value` of everything within that says something, by dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            text = f"[{_plain(value)}]" if isinstance(value, list | tuple) else _plain(value)
            yield f"{prefix}{key}={text}"
