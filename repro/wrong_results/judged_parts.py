"""Choice of the parts of a program that can be judged, from the values an engine computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iree_pilot.repro.ir.feeds import ARGUMENT, FedValue
from iree_pilot.repro.ir.graph import Graph, is_tensor
from iree_pilot.repro.wrong_results.references import Inside


def judgeable(graph: Graph, parts: Sequence[Sequence[int]], inside: Inside) -> list[bool]:
    """True for each part whose inputs are known and whose operations the engine supports."""
    places = {value: FedValue(ARGUMENT, number) for number, value in enumerate(graph.arguments)}
    for op in graph.ops:
        places |= {value: FedValue(op.index, number) for number, value in enumerate(op.results)}
    return [_is_judgeable(graph, part, inside, places) for part in parts]


def _is_judgeable(
    graph: Graph, part: Sequence[int], inside: Inside, places: Mapping[int, FedValue]
) -> bool:
    waiting = [*part]
    members = set(part)
    while waiting:
        index = waiting.pop()
        if index in inside.skipped:
            return False
        for value in graph.ops[index].operands:
            place = places[value]
            if place.op == ARGUMENT or place.op in members:
                continue
            if graph.ops[place.op].glue or not is_tensor(graph.types[value]):
                # It comes along with what takes it.
                members.add(place.op)
                waiting.append(place.op)
            elif place not in inside.values:
                return False
    return True
