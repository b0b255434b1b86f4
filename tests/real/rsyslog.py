"""A real rsyslog as receiver: plain TCP and, with certificates, TLS; what it parsed lands in a file."""

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import SYSTEM_PATH, absent
from tests.real.intake import wait_until

_MODULES = Path("/usr/lib/x86_64-linux-gnu/rsyslog")


class Rsyslog:
    """A direct child on a port that it keeps over restarts."""

    def __init__(self, directory: Path, certificates: Path | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._kills = 0
        self._tls = certificates is not None
        self._config(certificates)

    def start(self) -> None:
        binary = shutil.which("rsyslogd", path=SYSTEM_PATH)
        if binary is None:
            absent("rsyslogd is not installed; on Debian: apt-get install rsyslog")
        if self._tls and _MODULES.is_dir() and not (_MODULES / "lmnsd_ossl.so").exists():
            absent("rsyslog cannot do TLS; on Debian: apt-get install rsyslog-openssl")
        assert binary is not None
        (self.directory / "pid").unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-n", "-f", str(self.directory / "rsyslog.conf"), "-i", str(self.directory / "pid")],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, "rsyslogd")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._kills += number == signal.SIGKILL

    def messages(self) -> list[dict[str, Any]]:
        """What it parsed, one record a message.

        A line still being written is left out, and so is the one that a kill may have torn.
        """
        path = self.directory / "out.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        found = []
        torn = 0
        for line in filter(None, lines):
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                torn += 1
                if torn > self._kills:
                    raise
        return found

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _config(self, certificates: Path | None) -> None:
        files = ""
        mode = ""
        if certificates is not None:
            files = (
                f'defaultNetstreamDriverCAFile="{certificates}/ca.pem" '
                f'defaultNetstreamDriverCertFile="{certificates}/server.pem" '
                f'defaultNetstreamDriverKeyFile="{certificates}/server.key"'
            )
            mode = 'streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid"'
        (self.directory / "rsyslog.conf").write_text(
            f'global(workDirectory="{self.directory}" maxMessageSize="64k" {files})\n'
            f'module(load="imtcp" {mode})\n'
            'module(load="mmpstrucdata")\n'
            # A line break before each record as well: what a kill tears does not take the next one with it.
            'template(name="j" type="list") '
            '{ constant(value="\\n") property(name="jsonmesg") constant(value="\\n") }\n'
            'ruleset(name="w") { action(type="mmpstrucdata" sd_name.lowercase="off") '
            f'action(type="omfile" file="{self.directory}/out.jsonl" template="j") }}\n'
            f'input(type="imtcp" address="127.0.0.1" port="{self.port}" ruleset="w")\n'
        )
