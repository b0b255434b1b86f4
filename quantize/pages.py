"""Templates to pages. The only importer of jinja2 here."""

from pathlib import Path

import jinja2

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(("html.j2",)),  # Markdown has no such thing
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def page(template: str, **values: object) -> str:
    """Return a template of this folder, filled in; what goes into HTML is escaped."""
    return _TEMPLATES.get_template(template).render(values)
