"""Makes a drawing small: the same picture to a tenth of a point, in a third of the bytes that matplotlib writes.

A report shows a hundred figures on one page of less than 3 MB. Groups that say nothing go, numbers lose digits that no
screen shows, points that fall on one another are drawn once, and what neighbours share of their look is said once.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from itertools import groupby

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
DIGITS = 1  # of a coordinate: a figure is 324 points wide
ROOT_LOOK = "stroke-linejoin:round;font-family:DejaVu Sans,sans-serif"
PLACED = ("x", "y", "width", "height")
SHARED = ("style", "clip-path")  # what neighbours may say once
TOKEN = re.compile(r"[A-Za-z]|-?[\d.]+(?:e-?\d+)?")


def compact(svg: str, name: str, grid: str) -> str:
    """The drawing without prolog and metadata, for a page of many.

    Args:
        svg: a document of matplotlib.
        name: of the figure; ids are made from it, so that no two figures of a page share one.
        grid: the colour of grid lines, which are drawn as one path.
    """
    root = ET.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)  # the root alone names it; ElementTree would invent prefixes
    for parent in root.iter():
        for child in [c for c in parent if _invisible(c)]:
            parent.remove(child)
    _rename(root, hashlib.sha256(name.encode()).hexdigest()[:8])
    for element in root.iter():
        _shorten(element)
    _flatten(root)
    for parent in list(root.iter()):
        _join_grid(parent, grid)
    for parent in list(root.iter()):
        _share(parent)
    root.attrib.pop("version", None)
    root.attrib = {"xmlns": SVG[1:-1], **root.attrib, "style": ROOT_LOOK}
    return ET.tostring(root, encoding="unicode")


def _invisible(element: ET.Element) -> bool:
    """Metadata, the style sheet that the root's look replaces, and paths without fill and stroke."""
    if element.tag in ("metadata", "style"):
        return True
    style = element.get("style", "").replace(" ", "")
    return element.tag == "path" and "id" not in element.attrib and style == "fill:none"


def _rename(root: ET.Element, prefix: str) -> None:
    """Short ids, only where they are used; links without the old name space."""
    for element in root.iter():
        if link := element.attrib.pop(XLINK, None):
            element.set("href", link)
    places = [(e, key, m[1]) for e in root.iter() for key in ("href", "clip-path")
              if (m := re.search(r"#([\w.-]+)", e.get(key, "")))]  # fmt: skip
    names = {old: f"f{prefix}.{number}" for number, old in enumerate(dict.fromkeys(old for *_, old in places))}
    for element, key, old in places:
        element.set(key, element.attrib[key].replace(f"#{old}", f"#{names[old]}"))
    for element in root.iter():
        if (old := element.attrib.pop("id", None)) in names:
            element.set("id", names[old])


def _shorten(element: ET.Element) -> None:
    """Fewer digits and spaces; what is the default, or the root's look, is left out."""
    element.text, element.tail = (element.text or "").strip() or None, None
    for key in PLACED:
        if key in element.attrib and element.tag != "svg":
            element.set(key, _number(float(element.attrib[key])))
    if "d" in element.attrib:
        element.set("d", path(element.attrib["d"]))
    if "style" in element.attrib:
        parts = (part.strip().replace(": ", ":") for part in element.attrib["style"].split(";"))
        element.set("style", ";".join(part for part in parts if part and not part.startswith("font-family")))
    if "transform" in element.attrib:
        turned = re.sub(r"-?[\d.]+", lambda m: _number(float(m[0])), element.attrib["transform"])
        element.set("transform", turned)
        if turned.startswith("rotate(0 "):
            del element.attrib["transform"]


def path(d: str) -> str:
    """A path in relative steps of a tenth; points that fall on the one before are left out.

    The steps are differences of rounded places, so that errors do not add up. Paths with curves keep their places.
    """
    tokens = TOKEN.findall(d)
    if any(token.isalpha() and token not in "MLz" for token in tokens):
        return "".join(t if t.isalpha() else f"{_number(float(t))} " for t in tokens).replace(" -", "-").strip()
    out: list[str] = []
    here, command, i = (0.0, 0.0), "M", 0
    while i < len(tokens):
        if tokens[i].isalpha():
            command, i = tokens[i], i + 1
            if command == "z":
                out.append("z")
            continue
        x, y = (round(float(token), DIGITS) for token in tokens[i : i + 2])
        i += 2
        if command == "M":
            out.append(f"M{_number(x)} {_number(y)}")
        elif (x, y) != here or out[-1].startswith("M"):
            out.append(_step(x - here[0], y - here[1], out[-1]))
        here = (x, y)
    return "".join(out)


def _step(dx: float, dy: float, before: str) -> str:
    """A line by (dx, dy); the letter is left out where the step before has the same."""
    x, y = _number(dx), _number(dy)
    letter, text = ("h", x) if y == "0" else ("v", y) if x == "0" else ("l", f"{x} {y}")
    text = text.replace(" -", "-")
    same = letter == "l" and before[0] in "l -"
    return f"{letter}{text}" if not same else text if text.startswith("-") else f" {text}"


def _number(value: float) -> str:
    text = f"{value:.{DIGITS}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _flatten(element: ET.Element) -> None:
    """Groups and definitions without attributes give way to their children."""
    children: list[ET.Element] = []
    for child in element:
        _flatten(child)
        plain = child.tag == "g" and not child.attrib
        children += list(child) if plain else [child] if len(child) or child.attrib or child.text else []
    element[:] = children


def _join_grid(parent: ET.Element, grid: str) -> None:
    """The grid lines of one parent as one path, which lies under everything anyway."""
    first: dict[tuple[str, str], ET.Element] = {}
    for child in list(parent):
        look = child.get("style", ""), child.get("clip-path", "")
        if child.tag == "path" and f"stroke:{grid}" in look[0]:
            if look in first:
                first[look].set("d", first[look].attrib["d"] + child.attrib["d"])
                parent.remove(child)
            else:
                first[look] = child


def _share(parent: ET.Element) -> None:
    """Neighbours of one look are put into a group that has it."""
    children: list[ET.Element] = []
    for (tag, *look), run in groupby(parent, key=lambda e: (e.tag, *(e.get(key) for key in SHARED))):
        members = list(run)
        if len(members) < 2 or tag not in ("path", "use", "text") or not any(look):
            children += members
            continue
        group = ET.Element("g", {key: value for key, value in zip(SHARED, look) if value})
        for member in members:
            for key in SHARED:
                member.attrib.pop(key, None)
        group[:] = members
        children.append(group)
    parent[:] = children
