"""What tests of tables share."""

from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType


@pytest.fixture
def printed() -> Callable[[RenderableType], str]:
    """What a table looks like on a wide terminal."""

    def text(table: RenderableType) -> str:
        console = Console(width=300)
        with console.capture() as capture:
            console.print(table)
        return capture.get()

    return text
