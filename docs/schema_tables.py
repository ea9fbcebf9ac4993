"""Write the tables of docs/json.md from docs/schemas: ``python docs/schema_tables.py``."""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "json.md"
BLOCK = re.compile(r"(<!-- schemas -->\n).*?(<!-- end -->)", re.DOTALL)


def kind(found: dict[str, Any]) -> str:
    """The types of a value, in words."""
    types = found.get("type", "any")
    return types if isinstance(types, str) else " or ".join(types)


def tables() -> str:
    """For each command its keys, in the order in which they are printed."""
    parts = []
    for path in sorted((HERE / "schemas").glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {path.stem}\n\n[Schema](schemas/{path.name}).\n\n")
        parts.append("| key | type | what it is |\n| --- | --- | --- |\n")
        always = set(schema["required"])
        for key, about in schema["properties"].items():
            rare = "" if key in always else "; not in every run"
            parts.append(f"| `{key}` | {kind(about)} | {about['description']}{rare} |\n")
        parts.append("\n")
    return "".join(parts)


def filled(text: str) -> str:
    """The page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + tables() + found[2], text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
