"""What an exception says in one line."""


def first_line(error: BaseException) -> str:
    """What an exception says in its first line, or else its kind."""
    return str(error).strip().split("\n")[0] or type(error).__name__
