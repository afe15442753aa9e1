"""The command ``proclink``. It needs the extra ``cli``; the library does not."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line and gives its exit status."""
    try:
        try:
            # Not at the top: this package is imported without the extra too.
            import rich  # noqa: F401
            import typer  # noqa: F401
        except ImportError:
            print(
                'the command line needs an extra: pip install "proclink[cli]"',
                file=sys.stderr,
            )
            return 1
        from proclink.cli._application import run

        return run()
    except KeyboardInterrupt:  # while starting or ending
        return 130
