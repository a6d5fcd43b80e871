"""The one error that users are meant to read."""


class UserError(Exception):
    """Bad input: the message names the thing, its value, what is allowed and the remedy.

    The command line prints it without a traceback and ends with status 2.
    """
