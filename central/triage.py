"""What `python -m bytewax.run central.triage` loads: the triage flow on Kafka, with the centre's model.

It reads what gateways doubt, and text that others produce where that is configured; verdicts go back to Kafka. With
`-i` and `-a` it is one process of a cluster: each reads its share of the partitions, and nothing crosses between them.
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource

from central.config import Config, config_path, read_config
from central.engine import open_engine
from central.flow_process import FlowProcess
from central.lookups import Lookups
from central.outlets import Sinks
from central.wiring import cluster_of, consuming, names_of
from dataflows.cache.snapshot import Made
from dataflows.cache.verdict_cache import VerdictCache
from dataflows.connectors.joined_source import JoinedSource
from dataflows.connectors.kafka_source import KafkaSource
from dataflows.operators.decode import Reading
from dataflows.operators.repeats import Repeats
from dataflows.running import logs
from dataflows.running.cache_files import audit_secret, keep, take_over, warm
from dataflows.running.policy import policy_in_force, renew
from dataflows.running.pulse import PulsingSource
from dataflows.running.recovery import RunOptions, run_options
from dataflows.running.service import exit_code_of, ignore_until_open
from dataflows.triage import Outlet, triage
from models.classifier import Classifier, Current
from models.contracts.policy import Policy

NAME = "triage"
_QUESTIONS = "questions"


def flow() -> Dataflow:
    """Run the flow of the configuration in force and exit: 0 stopped, 2 cannot start as configured, 1 otherwise."""
    logs.configure()
    raise SystemExit(exit_code_of(lambda: run(config_path(), run_options(sys.argv[1:], os.environ))))


def run(path: Path, options: RunOptions) -> int:
    """Run the flow that `path` describes until a signal stops it; return its exit code.

    Raises:
        ConfigError: it cannot start as it is configured.
        UntrustedError: the model is not what was promised.
        UnavailableError: the disk does not let it start.
    """
    ignore_until_open()
    config = read_config(path)
    with ExitStack() as opened:
        process = TriageProcess(config, path, options, opened)
        return process.run(process.lay_out())


class TriageProcess(FlowProcess):
    """The flow's process, with a model, a policy and a cache."""

    def __init__(self, config: Config, path: Path, options: RunOptions, opened: ExitStack) -> None:
        super().__init__(NAME, config, config.triage.operations, options, opened)
        self._config = config
        self._path = path
        engine = open_engine(config.engine)
        opened.callback(engine.classifier.close)
        self._classifier: Current[Classifier] = Current(engine.classifier)
        self._engine = engine
        release = engine.classifier.release
        self._policy: Current[Policy] = Current(policy_in_force(config.policy, config.policy_file, release))
        self._lookups = Lookups(config.lookups, cluster_of(config))
        opened.callback(self._lookups.close)
        ages_s = self._lookups.ages_s()
        self.meters.follow("lookup_age_seconds", "Since a table's source last said how things are.", "lookup", ages_s)
        self._enriching = self._lookups.enriching(config.enrich)
        self._secret = audit_secret(self.state_dir)
        self._cache = VerdictCache(self._secret)
        self._cache.follow(release, self._policy.get())
        warm(self._cache, self.state_dir, self._secret, self._made())

    def lay_out(self) -> Dataflow:
        """Lay the flow out."""
        config, names = self._config, names_of(self._config)
        letters = Sinks(config, self, None).to_dead_letters(names.dead_letters)
        verdicts = Sinks(config, self, letters).to_topic("verdicts", names.verdicts)
        return triage(
            PulsingSource(JoinedSource(self._sources()), self.pulse),
            self._classifier,
            self._policy,
            [Outlet("output-verdicts", verdicts)],
            letters,
            readings=self._readings(),
            enriching=self._enriching,
            repeats=Repeats(window_events=config.repeats.window_events, window_s=config.repeats.window_s),
            cache=self._cache,
            window_events=self._engine.window_events,
            wait=self.stop.wait,
            observer=self.meters,
            lane=self.lane,
        )

    def begin(self) -> None:
        super().begin()
        self._lookups.start()
        take_over(self._cache, self.state_dir)

    def announcement(self) -> str:
        return f"{self._classifier.get().release.title} answers"

    def reload(self) -> None:
        """Read the policy again, and nothing else."""
        renew(self._policy, self._read_policy)

    def settle(self) -> None:
        self._cache.follow(self._classifier.get().release, self._policy.get())
        keep(self._cache, self.state_dir, self._secret, self._made())

    def _read_policy(self) -> Policy:
        config = read_config(self._path)
        return policy_in_force(config.policy, config.policy_file, self._classifier.get().release)

    def _sources(self) -> dict[str, FixedPartitionedSource[Any, Any]]:
        topics = {_QUESTIONS: names_of(self._config).questions}
        if self._config.triage.events is not None:
            topics[self._config.triage.events.name] = self._config.triage.events.topic
        return {
            name: KafkaSource(
                consuming(
                    self._config,
                    topic,
                    flow=NAME,
                    source=name,
                    process=self.process,
                    processes=self.processes,
                    batch_records=self._config.triage.batch_records,
                ),
                self.stop,
            )
            for name, topic in topics.items()
        }

    def _readings(self) -> dict[str, Reading]:
        labels = self._classifier.get().release.task.label_names
        found = {_QUESTIONS: Reading(kind="questions", labels=labels)}
        events = self._config.triage.events
        if events is not None:
            found[events.name] = Reading(
                max_bytes=events.max_event_bytes, text_path=events.text_path, id_path=events.id_path
            )
        return found

    def _made(self) -> Made:
        release, policy = self._classifier.get().release, self._policy.get()
        return Made.under(self._engine.sha256, release, self._engine.context_tokens, policy.cache)
