"""The console script `iree-pilot`, and `python -m iree_pilot`."""

from __future__ import annotations


def main() -> None:
    """Runs the command line; a signal that comes before it is listened to ends the process."""
    # Part of the interpreter: nothing has to be loaded before Ctrl-C is quiet.
    import _signal  # type: ignore[import-not-found]
    import gc

    # Imports leave no garbage: to look for it 300 times is a tenth of a short command's time.
    gc.set_threshold(50_000)
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from iree_pilot.pipeline.cli import main as command

    command()


if __name__ == "__main__":
    main()
