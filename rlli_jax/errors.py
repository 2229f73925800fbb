"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message is one clear sentence: what is wrong, where (file and line, or the key's path),
    and what to do. The command line prints it without a traceback and exits with status 2.
    """
