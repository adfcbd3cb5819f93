"""A scenario file to a `Scenario`, or every mistake in it.

    octets -> tree with places -> `--set` -> one merged tree per variant -> shape -> combinations -> support

Reads the one file it is given and nothing else; a topology's nodes are asked of the caller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from testbed.scenario.check import (
    Known,
    TopologyShape,
    check_actions,
    check_expectations,
    check_lost_sites,
    check_variant,
)
from testbed.scenario.errors import Mistake, ScenarioErrors, nearest, one_of
from testbed.scenario.lesson import check_lesson, resolve_lesson
from testbed.scenario.model import HeadModel, VariantModel
from testbed.scenario.overrides import apply_override
from testbed.scenario.resolve import resolve_expectations, resolve_topology, resolve_variant
from testbed.scenario.shape import fit
from testbed.scenario.support import unsupported
from testbed.scenario.tree import MAX_OCTETS, Located, check_size, kind_name, merge, parse_scenario_text
from testbed.scenario.values import Scenario, TopologyRef, Variant
from testbed.scenario.words import tap_name

RUN_FILES = ("result.json", "report.html", "scenario.yaml", "captures")
SINGLE_VARIANT = "only"  # the name of the variant of a file that has no variants

TopologyLookup = Collection[str] | Callable[[TopologyRef], TopologyShape | Collection[str]]

HEAD_KEYS = ("title", "description", "seed", "expect", "lesson")
VARIANT_KEYS = tuple(VariantModel.model_fields)
ROOT_KEYS = (*dict.fromkeys((*HEAD_KEYS, *VARIANT_KEYS)), "variants")


def load_scenario(path: Path | str, overrides: Sequence[str] = (), *, nodes: TopologyLookup | None = None) -> Scenario:
    """The scenario in a file, with `key.path=value` overrides applied to it.

    Shape: `nodes` are the topology's node names, or a function that gives them (or a `TopologyShape`) for a
        `TopologyRef`; it raises ValueError, one line per problem, for a topology that cannot be loaded. Without it
        nodes are not checked.
    Errors: ScenarioErrors with all mistakes
    """
    source = str(path)
    try:
        # A pipe without a writer would be waited for for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            os.set_blocking(file.fileno(), True)
            untrusted = file.read(MAX_OCTETS + 1)
            octets = max(len(untrusted), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise ScenarioErrors([Mistake(source, 0, 0, "", f"cannot be read: {error.strerror or error}")]) from None
    check_size(octets, source)
    return parse_scenario(untrusted, source, overrides, nodes=nodes)


def parse_scenario(
    untrusted: bytes, source: str, overrides: Sequence[str] = (), *, nodes: TopologyLookup | None = None
) -> Scenario:
    """As `load_scenario`, from the octets of a file called `source`."""
    root = parse_scenario_text(untrusted, source)
    mistakes: list[Mistake] = []
    for override in overrides:
        try:
            root = apply_override(root, override)
        except ScenarioErrors as errors:
            mistakes += errors.mistakes
    head, head_tree, found = fit(HeadModel, _only(root, HEAD_KEYS))
    mistakes += [*found, *_unknown_keys(root)]
    if root.child("title") is None:
        mistakes.append(Mistake(source, root.line, root.column, "title", "missing; the question asked, in one line"))
    variants, known = _variants(root, Path(source).parent, nodes, mistakes)
    if head is not None:
        mistakes += check_expectations(head.expect, head_tree, known, found)
        mistakes += check_lesson(head.lesson, head_tree, known)
    if mistakes or head is None or head.title is None:
        raise ScenarioErrors(mistakes)
    return Scenario(
        name=Path(source).stem,
        title=head.title,
        description=" ".join(head.description.split()),
        file=source,
        seed=head.seed,
        variants=variants,
        expectations=resolve_expectations(head.expect, head_tree),
        lesson=resolve_lesson(head.lesson),
    )


def _only(tree: Located, keys: Iterable[str]) -> Located:
    pairs = tree.value if isinstance(tree.value, dict) else {}
    return replace(tree, value={key: pairs[key] for key in keys if key in pairs})


def _unknown_keys(root: Located) -> Iterator[Mistake]:
    for key in _pairs(root):
        if key not in ROOT_KEYS:
            yield root.at(key).key_mistake(f"unknown key; {one_of(ROOT_KEYS)}{nearest(key, ROOT_KEYS)}")


def _variants(
    root: Located, directory: Path, nodes: TopologyLookup | None, mistakes: list[Mistake]
) -> tuple[dict[str, Variant], dict[str, Known]]:
    """Every variant that is right, and the names that every variant defines; what is wrong goes to `mistakes`."""
    base = _only(root, VARIANT_KEYS)
    variants: dict[str, Variant] = {}
    known: dict[str, Known] = {}
    for name, override in _overrides(root, mistakes):
        merged = merge(replace(base, value={k: v for k, v in _pairs(base).items() if k != "title"}), override)
        known[name] = Known.of(merged)
        model, tree, found = fit(VariantModel, merged)
        if model is not None:
            shape = _shape(model, tree, directory, nodes, found)
            found += check_actions(merged)
            found += check_lost_sites(merged, model, shape)
            found += check_variant(model, tree, known[name], shape)
            found += unsupported(model, tree)
        if model is not None and not found:
            variants[name] = resolve_variant(name, model, directory)
        mistakes += found
    return variants, known


def _pairs(tree: Located) -> dict[str, Located]:
    return tree.value if isinstance(tree.value, dict) else {}


def _overrides(root: Located, mistakes: list[Mistake]) -> Iterator[tuple[str, Located]]:
    """Each variant's name and overrides; a file without variants is one variant."""
    variants = root.child("variants")
    if variants is None:
        yield SINGLE_VARIANT, replace(root, value={})
        return
    if not isinstance(variants.value, dict) or not variants.value:
        mistakes.append(variants.mistake(f"must be a mapping of names to overrides, not {kind_name(variants.value)}"))
        return
    for name, override in variants.value.items():
        try:
            tap_name(name)  # both become names of files
        except ValueError as error:
            mistakes.append(override.key_mistake(str(error).replace("a tap's name", "a variant's name")))
        if name in RUN_FILES:
            mistakes.append(
                override.key_mistake("a run writes a file of this name beside its variants; choose another")
            )
        if override.value is None:
            yield name, replace(override, value={})
        elif isinstance(override.value, dict):
            yield name, override
        else:
            mistakes.append(override.mistake(f"must be a mapping of overrides, not {kind_name(override.value)}"))


def _shape(
    model: VariantModel, tree: Located, directory: Path, nodes: TopologyLookup | None, found: list[Mistake]
) -> TopologyShape | None:
    """What the caller knows of the variant's topology; its complaints stand where the topology is named."""
    if nodes is None:
        return None
    try:
        known = nodes(resolve_topology(model, directory)) if callable(nodes) else nodes
    except ValueError as error:
        found += [tree.at("topology").mistake(line) for line in str(error).splitlines()]
        return None
    return known if isinstance(known, TopologyShape) else TopologyShape(frozenset(known))
