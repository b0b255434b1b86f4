"""Text of strangers as a terminal may show it."""


def visible(text: str) -> str:
    r"""Return a text with what cannot be printed as its escape.

    An escape sequence reads `\x1b[2J`, and a line end `\n`; so nothing steers the terminal or breaks a line.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
