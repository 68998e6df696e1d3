"""The one class of errors a user can cause, and how a command ends on it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable


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
