"""Live text in a terminal: partials rewritten in place, finals settling above them."""

from __future__ import annotations

import sys
from itertools import takewhile
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gladiaio_sdk import LiveV2TranscriptMessageData, LiveV2Utterance

REWRITTEN = "yellow"
"""Style of the words of a partial that differ from the partial before."""


def progress_console() -> Console:
    """Give the console for what is not the result: stderr, or stdout where both are the same terminal.

    Two consoles on one terminal would overwrite each other's lines.
    """
    both = sys.stdout.isatty() and sys.stderr.isatty()
    return Console() if both else Console(stderr=True)


class LiveText:
    """The open utterances of a session at the bottom of a terminal, with `footer` below them.

    Where `console` is no terminal nothing is shown but what `settle` prints.
    """

    def __init__(self, console: Console, *, footer: RenderableType | None = None) -> None:
        self.console = console
        self._footer = footer
        self._open: dict[str, RenderableType] = {}
        self._words: dict[str, list[str]] = {}
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=12, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._live.stop()

    def rewrite(self, data: LiveV2TranscriptMessageData) -> None:
        """Show a partial in place of the one before it."""
        words = data.utterance.text.split()
        self._open[data.id] = row("…", data.utterance, self._words.get(data.id, []))
        self._words[data.id] = words

    def settle(self, data: LiveV2TranscriptMessageData, line: RenderableType | None) -> None:
        """Remove the partial of a final and print `line`, if any, above what is still open."""
        self._open.pop(data.id, None)
        self._words.pop(data.id, None)
        # A live display prints its last state below the line; it must not show the partial any more.
        self._live.refresh()
        if line is not None:
            self.console.print(line, soft_wrap=isinstance(line, Text))

    def write(self, data: LiveV2TranscriptMessageData, line: str) -> None:
        """Remove the partial of a final and write `line` to standard output, above what is still open."""
        shared = self.console.is_terminal and not self.console.stderr
        self.settle(data, Text(line) if shared else None)
        if not shared:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    def _render(self) -> RenderableType:
        footer = [self._footer] if self._footer is not None else []
        return Group(*list(self._open.values()), *footer)


def row(mark: str, utterance: LiveV2Utterance, before: list[str] | None = None) -> RenderableType:
    """Lay out an utterance with its mark and start; words that differ from those `before` stand out."""
    words = utterance.text.split()
    pairs = zip(words, words if before is None else before, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    text = Text(" ".join(words[:same]))
    text.append((" " if same else "") + " ".join(words[same:]), style=REWRITTEN)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="green" if mark == "✓" else "yellow")
    grid.add_column(style="dim", justify="right", width=7)
    grid.add_column(overflow="fold")
    grid.add_row(mark, f"{utterance.start:.1f} s", text)
    return grid
