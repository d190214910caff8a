"""A report as PDF: the HTML page, laid out by WeasyPrint, which is an extra."""

from __future__ import annotations

from typing import Any

from topicwarden.errors import ConfigurationError, Problem


def render(page: str) -> bytes:
    """Return the page as PDF; raises ConfigurationError when WeasyPrint or a library it needs is not there."""
    try:
        from weasyprint import HTML
    except (ImportError, OSError) as error:
        raise ConfigurationError(
            Problem(
                f"PDF needs WeasyPrint, which cannot be loaded: {error}",
                hint="pip install 'topicwarden[pdf]' and Debian's libpango-1.0-0, libpangoft2-1.0-0;\n"
                "or write .html and print that from a browser",
            )
        ) from error
    written: bytes = HTML(string=page, url_fetcher=_Nothing()).write_pdf()
    return written


class _Nothing:
    """Loads nothing: the page needs nothing, and no name in it may make us fetch something."""

    _fail_on_errors = False
    """What WeasyPrint 68 and later ask of whoever fetches: what is refused is left out, as before."""

    def __call__(self, url: str, *_: Any, **__: Any) -> Any:
        raise ValueError(f"a report loads nothing, and not {url}")
