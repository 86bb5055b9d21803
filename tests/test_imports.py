"""Import circles: the package has none, those hidden behind TYPE_CHECKING included."""

from __future__ import annotations

import grimp


def circles(graph: grimp.ImportGraph) -> frozenset[frozenset[str]]:
    """Every set of two or more modules that import one another, directly or through others."""
    below = {module: graph.find_upstream_modules(module) for module in graph.modules}
    joined = {
        frozenset({module, *(other for other in below[module] if module in below[other])})
        for module in graph.modules
    }
    return frozenset(circle for circle in joined if len(circle) > 1)


def test_a_circle_of_three_is_found_and_a_diamond_is_none() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in ("ab", "bc", "ca", "cd", "de", "df", "eg", "fg"):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == {frozenset("abc")}


def test_no_modules_import_one_another() -> None:
    graph = grimp.build_graph("peftsearch", exclude_type_checking_imports=False, cache_dir=None)
    assert circles(graph) == frozenset()
