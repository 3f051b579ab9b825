"""Which elements of a page are not its text: furniture of the site, and what no reader sees."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode


def names(text: str) -> frozenset[str]:
    """Return the names in `text`, which white space separates."""
    return frozenset(text.split())


# Never text.
_SILENT_TAGS = names(
    "applet area audio base button canvas datalist embed frame frameset head iframe img input link "
    "map meta noembed noframes noscript object option param picture progress script select source "
    "style svg template textarea title track video"
)
_FURNITURE_ROLES = names("banner complementary contentinfo menu menubar navigation search")
# What DocBook, Sphinx, MkDocs, Docusaurus, Doxygen and others write around a page's text.
_FURNITURE_CLASSES = names(
    "navheader navfooter toc toctree-wrapper sphinxsidebar related headerlink anchorlink "
    "header-anchor hash-link breadcrumb breadcrumbs rst-breadcrumbs-buttons navbar pagination "
    "pagination-nav prev-next-area skip-link edit-this-page md-sidebar md-header md-footer linenos "
    "lineno linenodiv navpath copybtn"
)
# An alphabetical index at the end of a book (DocBook, Sphinx): thousands of headwords that would
# stand before the pages they point to.
_INDEX_CLASSES = names("indexdiv genindextable")
_SITE_TAGS = frozenset(("header", "footer", "aside"))  # furniture unless they stand in an article
_HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?:\.0*)?(?![.\d])"
    r"|font-size\s*:\s*0*(?:\.0*)?[01]?(?:\.\d*)?(?:px|pt|em|rem|%)?\s*(?:;|!|$)"
    r"|(?:text-indent|left|right|top|margin-left)\s*:\s*-\d{3,}"
    r"|clip\s*:\s*rect\(\s*0|clip-path\s*:\s*inset\(\s*(?:50|100)%"
)
_WHITE = re.compile(
    r"(?<![-\w])color\s*:\s*(?:white|#fff(?:fff)?|rgba?\(\s*255\s*,\s*255\s*,\s*255|transparent)"
)
_HIDDEN_CLASSES = names("sr-only visually-hidden visuallyhidden screen-reader-text")


def is_furniture(node: LexborNode, is_page: bool) -> bool:
    """Tell whether an element is navigation, a form, a script or the like.

    `is_page` false: only what is never text counts, and the index of a book.
    """
    tag = node.tag or ""
    if tag in _SILENT_TAGS or has_class(node, _INDEX_CLASSES):
        return True
    if not is_page:
        return False
    attributes = node.attributes
    if tag == "nav" or (attributes.get("role") or "").lower() in _FURNITURE_ROLES:
        return True
    if has_class(node, _FURNITURE_CLASSES):
        return True
    return tag in _SITE_TAGS and not _is_in_article(node)


def has_class(node: LexborNode, names: frozenset[str]) -> bool:
    """Tell whether an element has one of these classes."""
    return not names.isdisjoint((node.attributes.get("class") or "").split())


def _is_in_article(node: LexborNode) -> bool:
    parent = node.parent
    while parent is not None and parent.tag not in ("body", "html"):
        if parent.tag in ("article", "main", "section"):
            return True
        parent = parent.parent
    return False


def is_hidden(node: LexborNode) -> bool:
    """Tell whether a browser does not show an element, by its own attributes.

    Style sheets are not read.
    """
    attributes = node.attributes
    if not attributes:
        return False
    if "hidden" in attributes or (attributes.get("aria-hidden") or "").lower() == "true":
        return True
    if has_class(node, _HIDDEN_CLASSES):
        return True
    style = (attributes.get("style") or "").lower()
    if not style:
        return False
    return bool(_HIDDEN_STYLE.search(style)) or (
        "background" not in style and bool(_WHITE.search(style))
    )
