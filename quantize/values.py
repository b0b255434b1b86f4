"""Values for the placeholders of a template: plausible, varied, and the same for the same seed."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

_WORDS_FILE = Path(__file__).with_name("words.toml")


class _Words(Struct, frozen=True, forbid_unknown_fields=True):
    first: list[str]
    last: list[str]
    words: list[str]
    sites: list[str]
    roles: list[str]
    companies: list[str]
    top_level_domains: list[str]
    evil_words: list[str]
    evil_top_level_domains: list[str]
    mail: list[str]
    admins: list[str]
    service_users: list[str]
    ports: list[str]
    folders: list[str]
    windows_folders: list[str]
    extensions: list[str]
    services: list[str]
    tables: list[str]
    regions: list[str]
    countries: list[str]
    cities: list[str]
    interfaces: list[str]
    zones: list[str]
    rules: list[str]
    devices: list[str]
    processes: list[str]
    commands: list[str]
    tools: list[str]
    platforms: list[str]
    scanners: list[str]
    public_networks: list[str]


def _read_words() -> _Words:
    lists = tomllib.loads(_WORDS_FILE.read_text(encoding="utf-8"))
    parted = {name: words.split() if isinstance(words, str) else words for name, words in lists.items()}
    return msgspec.convert(parted, _Words)


_WORDS = _read_words()
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class Values:
    """Draws values from one source of chance."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._pick = chance.choice
        self._below = chance.randrange
        self._draw: dict[str, Callable[[], str]] = self._table()

    @property
    def names(self) -> tuple[str, ...]:
        """Every placeholder there is a value for."""
        return tuple(self._draw)

    def draw(self, placeholder: str) -> str:
        return self._draw[placeholder]()

    def _table(self) -> dict[str, Callable[[], str]]:
        pick, below = self._pick, self._below
        return {
            "ts_bsd": self._ts_bsd,
            "ts_iso": self._ts_iso,
            "ts_sql": self._ts_sql,
            "apache_ts": self._apache_ts,
            "epoch": lambda: str(below(1_450_000_000, 1_790_000_000)),
            "host": self._host,
            "fqdn": lambda: f"{self._host()}.{self._domain()}",
            "user": self._user,
            "admin_user": lambda: pick(_WORDS.admins),
            "svc_user": lambda: pick(_WORDS.service_users),
            "email": lambda: f"{self._user()}@{self._domain()}",
            "ext_email": lambda: f"{self._user()}{pick(('', '', str(below(100))))}@{pick(_WORDS.mail)}",
            "ip": self._ip,
            "ext_ip": lambda: f"{pick(_WORDS.public_networks)}.{below(256)}.{below(256)}.{below(1, 255)}",
            "ip6": lambda: (
                pick(("2001:db8:", "fe80::", "2a02:8109:")) + f"{self._hex(4)}:{self._hex(4)}::{self._hex(2)}"
            ),
            "mac": self._mac,
            "port": lambda: pick(_WORDS.ports),
            "hiport": lambda: str(below(1024, 65536)),
            "pid": lambda: str(below(100, 99_999)),
            "uid": lambda: str(pick((0, 0, 1000, 1001, 33, 65534, below(500, 60_000)))),
            "n": lambda: str(below(1, 60)),
            "big": lambda: str(below(1000, 10 ** below(5, 9))),
            "ms": lambda: str(below(1, 3000)),
            "hex8": lambda: self._hex(8),
            "hex16": lambda: self._hex(16),
            "sha256": lambda: self._hex(64),
            "md5": lambda: self._hex(32),
            "uuid": lambda: (
                f"{self._hex(8)}-{self._hex(4)}-4{self._hex(3)}-{pick('89ab')}{self._hex(3)}-{self._hex(12)}"
            ),
            "domain": self._domain,
            "evil_domain": self._evil_domain,
            "url": lambda: (
                f"{pick(('https', 'https', 'http'))}://{self._domain()}/{pick(_WORDS.words)}/{pick(_WORDS.words)}"
            ),
            "path": lambda: "/" + "/".join(pick(_WORDS.folders + _WORDS.words) for _ in range(below(2, 5))),
            "win_path": lambda: (
                "C:\\" + "\\".join(pick((*_WORDS.windows_folders, self._user())) for _ in range(below(1, 4)))
            ),
            "file": lambda: (
                pick(_WORDS.words)
                + pick(("", "", f"_{below(2015, 2027)}", f"-{pick(_WORDS.words)}"))
                + pick(_WORDS.extensions)
            ),
            "exe": lambda: pick((*_WORDS.words, "setup", "update", "agent", "invoice", self._hex(6))) + ".exe",
            "service": lambda: pick(_WORDS.services),
            "db": lambda: pick(_WORDS.words) + pick(("_db", "db", "", "_prod", "_main")),
            "table": lambda: pick(_WORDS.tables),
            "bucket": lambda: (
                f"{pick((*_WORDS.words, *_WORDS.companies))}-{pick(_WORDS.words)}"
                + pick(("", f"-{self._hex(4)}", "-logs"))
            ),
            "repo": lambda: f"{pick(_WORDS.words)}-{pick((*_WORDS.words, *_WORDS.services))}",
            "org": lambda: pick((*_WORDS.companies, f"{pick(_WORDS.words)}corp", f"{pick(_WORDS.words)}labs")),
            "account_id": lambda: str(below(10**11, 10**12)),
            "region": lambda: pick(_WORDS.regions),
            "country": lambda: pick(_WORDS.countries),
            "city": lambda: pick(_WORDS.cities),
            "ua": lambda: pick(_WORDS.tools),
            "browser_ua": self._browser,
            "scanner_ua": lambda: pick(_WORDS.scanners),
            "iface": lambda: pick(_WORDS.interfaces),
            "vlan": lambda: str(below(2, 4000)),
            "zone": lambda: pick(_WORDS.zones),
            "rule": lambda: pick((*_WORDS.rules, str(below(1, 9999)))),
            "session": lambda: str(below(10_000, 999_999)),
            "device": lambda: f"{pick(_WORDS.devices)}-{pick((self._hex(4), str(below(1, 60)), pick(_WORDS.sites)))}",
            "version": lambda: f"{below(1, 15)}.{below(20)}.{below(40)}",
            "proc": lambda: pick(_WORDS.processes),
            "cmd": lambda: pick(_WORDS.commands),
            "b64": lambda: "".join(pick(_BASE64) for _ in range(below(24, 60))) + pick(("", "=", "==")),
            "cve": lambda: f"CVE-{below(2014, 2027)}-{below(1000, 60_000)}",
        }

    def _hex(self, digits: int) -> str:
        return f"{self._chance.getrandbits(4 * digits):0{digits}x}"

    def _host(self) -> str:
        pick, below = self._pick, self._below
        forms = (
            lambda: f"{pick(_WORDS.words)}-{pick(_WORDS.roles)}{below(1, 40)}",
            lambda: f"{pick(_WORDS.sites)}-{pick(_WORDS.roles)}-{below(1, 30):02d}",
            lambda: f"{pick(_WORDS.roles)}{below(1, 99)}",
            lambda: f"srv-{pick(_WORDS.words)}",
            lambda: f"{pick(('WS', 'DESKTOP', 'LAPTOP', 'PC', 'SRV'))}-{self._hex(6).upper()}",
            lambda: f"ip-10-{below(256)}-{below(256)}-{below(256)}",
            lambda: pick((*_WORDS.words, *_WORDS.companies)),
        )
        return pick(forms)()

    def _user(self) -> str:
        pick = self._pick
        first, last = pick(_WORDS.first), pick(_WORDS.last)
        forms = (
            first,
            first[0] + last,
            f"{first}.{last}",
            f"{first}_{last[0]}",
            f"{last}{self._below(1, 99)}",
            first + last[0],
        )
        return pick(forms)

    def _domain(self) -> str:
        pick = self._pick
        return (
            pick((pick(_WORDS.companies), pick(_WORDS.words) + pick(("corp", "labs", "shop", "media", "bank", ""))))
            + "."
            + pick(_WORDS.top_level_domains)
        )

    def _evil_domain(self) -> str:
        pick = self._pick
        stem = pick(
            (
                pick(_WORDS.evil_words) + self._hex(self._below(4, 9)),
                self._hex(12),
                pick(_WORDS.evil_words) + pick(_WORDS.words),
            )
        )
        return f"{stem}.{pick(_WORDS.evil_top_level_domains)}"

    def _ip(self) -> str:
        below = self._below
        last = below(1, 255)
        return self._pick((
            f"10.{below(256)}.{below(256)}.{last}",
            f"192.168.{below(256)}.{last}",
            f"172.{below(16, 32)}.{below(256)}.{last}",
        ))  # fmt: skip

    def _mac(self) -> str:
        joint = self._pick((":", ":", "-"))
        return joint.join(self._hex(2) for _ in range(6))

    def _browser(self) -> str:
        platform, major = self._pick(_WORDS.platforms), self._below(98, 140)
        webkit = f"Mozilla/5.0 ({platform}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36"
        return self._pick((
            webkit,
            f"Mozilla/5.0 ({platform}; rv:{major}.0) Gecko/20100101 Firefox/{major}.0",
            f"Mozilla/5.0 ({platform}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
            f"{webkit} Edg/{major}.0.0.0",
        ))  # fmt: skip

    def _moment(self) -> tuple[int, int, int, int, int, int]:
        below = self._below
        return below(2016, 2027), below(1, 13), below(1, 29), below(24), below(60), below(60)

    def _ts_bsd(self) -> str:
        _, month, day, hour, minute, second = self._moment()
        return f"{_MONTHS[month - 1]} {day:2d} {hour:02d}:{minute:02d}:{second:02d}"

    def _ts_iso(self) -> str:
        year, month, day, hour, minute, second = self._moment()
        zone = self._pick(
            ("Z", "Z", "+00:00", "+02:00", f".{self._below(1000):03d}Z", f".{self._below(1000):03d}+00:00")
        )
        return f"{year}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{zone}"

    def _ts_sql(self) -> str:
        year, month, day, hour, minute, second = self._moment()
        return f"{year}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}"

    def _apache_ts(self) -> str:
        year, month, day, hour, minute, second = self._moment()
        return f"{day:02d}/{_MONTHS[month - 1]}/{year}:{hour:02d}:{minute:02d}:{second:02d} +0{self._below(3)}00"
