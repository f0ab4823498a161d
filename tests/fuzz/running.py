"""How many inputs each target gets, and the end of a hang.

By default every target gets a few inputs from a fixed seed; `python -m pytest tests/fuzz -m fuzz -rP` gives each twenty
times as many, and prints what they came to.
"""

from __future__ import annotations

import faulthandler
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from utils.errors import UserError

HANG = 30
"""Seconds from which an input counts as a hang, on a busy machine; the process then ends with all its stacks."""

MORE = 20


def fuzz(inputs: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of a target: called with `data` of hypothesis, it must end well or in a `UserError`.

    Args:
        inputs: in the default run.
    """

    def decorate(target: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.fuzz)], ids=["few", "many"])
        def test(many: bool, request: pytest.FixtureRequest) -> None:
            names = target.__code__.co_varnames[1 : target.__code__.co_argcount]
            fixtures = {name: request.getfixturevalue(name) for name in names}
            outcomes: Counter[str] = Counter()

            @settings(
                max_examples=inputs * MORE if many else inputs,
                deadline=None,
                database=None,
                derandomize=not many,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )
            @given(st.data())
            def run(data: st.DataObject) -> None:
                faulthandler.dump_traceback_later(HANG, exit=True)
                try:
                    target(data, **fixtures)
                    outcomes["accepted"] += 1
                except (UserError, FileNotFoundError) as error:
                    assert str(error).strip(), "an error without a sentence"
                    outcomes["refused"] += 1
                finally:
                    faulthandler.cancel_dump_traceback_later()

            run()
            print(f"{request.node.name}: {dict(outcomes)}")

        test.__name__ = target.__name__
        test.__doc__ = target.__doc__
        return test

    return decorate
