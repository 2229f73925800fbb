"""Pages that follow from the code: every key of a study, every command. A hook of mkdocs."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rlli_jax.experiments.schema import schema as schema_of
from rlli_jax.studies import STUDIES

COMMANDS = (
    "run", "judge", "generate", "measure-providers", "train", "report", "table", "personas",
    "sweep", "select", "evaluate", "export", "teach",
    "cache", "schema",
)  # fmt: skip


def config_page() -> Iterator[str]:
    """One table for each block of each kind of study."""
    yield "# Keys of a study\n"
    yield (
        "Every key with its type, its default and its meaning, as the program checks them. "
        "`rlli schema` prints the same as JSON schema, by which editors complete and check YAML.\n"
    )
    known: set[str] = set()
    for kind, study in STUDIES.items():
        schema = schema_of(study.part("config"))
        yield f"## A study of kind {kind}\n"
        yield from block(schema)
        for name, part in schema.get("$defs", {}).items():
            if name not in known:
                known.add(name)
                yield f"### {name}\n"
                yield from block(part)


def block(schema: dict[str, Any]) -> Iterator[str]:
    """What a block is, and the table of its keys."""
    yield schema.get("description", "") + "\n"
    if not schema.get("properties"):
        return
    required = schema.get("required", ())
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for name, key in schema["properties"].items():
        default = "*required*" if name in required else code(key.get("default"))
        meaning = key.get("description", "").replace("\n", " ")
        for special, shown in (("|", "\\|"), ("<", "&lt;")):
            meaning = meaning.replace(special, shown)
        yield f"| `{name}` | {kind_of(key)} | {default} | {meaning} |"
    yield ""


def code(value: Any) -> str:
    """A default as YAML would have it."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "of the block"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def kind_of(key: dict[str, Any]) -> str:
    """The type of a key in words, with its bounds."""
    if "$ref" in key:
        name = key["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in key:
        return f"`{key['const']}`"
    if "enum" in key:
        return " or ".join(f"`{value}`" for value in key["enum"])
    for several in ("anyOf", "oneOf"):
        if several in key:
            return " or ".join(kind_of(part) for part in key[several] if part != {"type": "null"})
    if key.get("type") == "array":
        if "prefixItems" in key:
            return "list of " + ", ".join(kind_of(part) for part in key["prefixItems"])
        return f"list of {kind_of(key.get('items', {}))}"
    if key.get("type") == "object":
        inner = key.get("additionalProperties")
        return f"mapping to {kind_of(inner)}" if isinstance(inner, dict) else "mapping"
    names = {"integer": "whole number", "number": "number", "boolean": "true or false"}
    text = names.get(key.get("type", ""), "text" if key.get("type") == "string" else "any")
    bounds = {
        "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most",
        "exclusiveMaximum": "below",
    }  # fmt: skip
    return ", ".join([text, *(f"{word} {key[b]:g}" for b, word in bounds.items() if b in key)])


def cli_page() -> Iterator[str]:
    """What `--help` of each command prints."""
    yield "# Command line\n"
    for command in ("", *COMMANDS):
        words = ["-m", "rlli_jax.cli", *([command] if command else []), "--help"]
        shown = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
        yield f"## rlli {command}".rstrip() + f"\n\n```text\n{shown.stdout.strip()}\n```\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of the folder."""
    for path, page in (("reference/config.md", config_page()), ("reference/cli.md", cli_page())):
        files.append(File.generated(config, path, content="\n".join(page) + "\n"))
    return files
