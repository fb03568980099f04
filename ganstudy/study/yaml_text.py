"""YAML text -> plain data, with limits on what aliases and nesting may make of it."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from ganstudy.limits import DEPTH, YAML_BYTES, YAML_NODES
from ganstudy.registry import StudyError

LARGEST = 2**64


def load_yaml(text: str) -> Any:
    """Load YAML 1.2 safely: tags are refused, never executed.

    Raises:
        StudyError: If the text is too large, nested too deeply, or its aliases expand too far.
        YAMLError: If it is not valid YAML, or holds a tag.
        ValueError: If a value is out of range.
    """
    if len(text) > YAML_BYTES:
        raise StudyError("", f"has {len(text)} characters, more than {YAML_BYTES}: shorten it")
    constructor, _ = YAML(typ="safe", pure=True).get_constructor_parser(text)
    try:
        node = constructor.composer.get_single_node()
        if node is None:
            return None
        _check(node)
        data = constructor.construct_document(node)
    except RecursionError:
        raise _too_deep() from None
    _check_numbers(data)
    return data


def _too_deep() -> StudyError:
    return StudyError("", f"is nested more than {DEPTH} levels deep: write it flatter")


def _check(root: Node) -> None:
    """Refuse a document that is too deep, refers to itself or grows by its aliases.

    Nodes that several aliases share are visited once, so that this takes no longer than reading.
    """
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_nodes: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        key = id(node)
        children = _children(node)
        if done:
            open_nodes.discard(key)
            sizes[key] = 1 + sum(sizes[id(child)] for child in children)
            depths[key] = 1 + max((depths[id(child)] for child in children), default=0)
            if depths[key] > DEPTH:
                raise _too_deep()
            if sizes[key] > YAML_NODES:
                rule = f"stands for more than {YAML_NODES} values once its aliases are expanded"
                raise StudyError("", f"{rule}: write what is meant without aliases")
        elif key in open_nodes:
            raise StudyError("", f"an alias refers to itself (line {node.start_mark.line + 1})")
        elif key not in sizes:
            open_nodes.add(key)
            stack.append((node, True))
            stack.extend((child, False) for child in children)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check_numbers(data: Any) -> None:
    """Refuse a whole number beyond 64 bits, which no option takes and no table holds."""
    seen: set[int] = set()
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise StudyError(
                "", f"the whole number {str(value)[:30]}... does not fit into 64 bits"
            )
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            stack.extend([*value, *value.values()] if isinstance(value, dict) else value)
