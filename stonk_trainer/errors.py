"""The one class of errors a user can cause, and how a command ends on it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong, and what to do."""


class Unreachable(UserError):
    """Something on the Hub that could not be asked for: the network is at fault, or a part that is yet to be made."""


def hub_error(message: str, error: BaseException) -> UserError:
    """The UserError for a failed request to the Hub: Unreachable when there was no answer at all."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionError, TimeoutError)) or type(cause).__name__ in _NO_ANSWER:
            return Unreachable(f"{message} (the Hub cannot be reached)")
        cause = cause.__cause__ or cause.__context__
    return UserError(message)


# Of the Hub client and the HTTP libraries it has used, which are not imported here.
_NO_ANSWER = {"ConnectError", "ConnectTimeout", "ReadTimeout", "ProxyError", "LocalEntryNotFoundError"}
_NO_ANSWER |= {"OfflineModeIsEnabled"}


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """`; did you mean KO?`, with the nearest of the known names; empty where none is near. Letter case aside."""
    import difflib

    names = {one.lower(): one for one in known}
    near = [names[one] for one in difflib.get_close_matches(name.lower(), names, n=most)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of at most 300 letters; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def in_one_line(what: str, error: BaseException) -> str:
    """What a library says of the user's settings, after what it is about."""
    return f"{what}: {type(error).__name__}: {first_line(error)} (STONK_TRACEBACK=1 shows where)"


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Around what libraries do with the user's settings: an error of theirs ends in one line that begins with `what`.

    With STONK_TRACEBACK=1 in the environment it is raised as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if os.environ.get("STONK_TRACEBACK"):
            raise
        raise UserError(in_one_line(what, error)) from error


def exits_cleanly(main: Callable) -> Callable:
    """Wrap a command's `main`: a `UserError` becomes one line on stderr and exit status 2, never a traceback.

    Under a multi-process launch only local rank 0 prints, so that the line appears once.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            sys.exit(2)
        except BrokenPipeError:  # the reader, such as `head`, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at the end
            sys.exit(0)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
