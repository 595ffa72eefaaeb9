"""What a task is told about itself and its topology when it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rainband.config import Config
from rainband.errors import UsageError, did_you_mean
from rainband.topology.plan import Plan
from rainband.topology.secrets import Secrets


class TopologyContext:
    """Handed to `open` and `prepare`. One per task; its `config` is that task's own copy.

    `task_index` counts the tasks of the component from 0; task ids are unique in the topology. `worker_tasks` are the
    tasks in the same process at the start of this one.
    """

    def __init__(
        self,
        plan: Plan,
        task_id: int,
        worker_tasks: Sequence[int] = (),
        config: Config | None = None,
        report_error: Callable[[BaseException], None] | None = None,
        secrets: Secrets | Mapping[str, str] | None = None,
    ) -> None:
        self.task_id = task_id
        self.component = plan.component_of[task_id]
        self.task_index = task_id - plan.tasks[self.component].start
        self.topology = plan.name
        self.worker_tasks: tuple[int, ...] = tuple(worker_tasks) or (task_id,)
        self.config = Config.layer(plan.config, plan.components[self.component].config) if config is None else config
        self._plan = plan
        self._report_error = report_error
        self._secrets = secrets if isinstance(secrets, Secrets) else Secrets(secrets)

    def tasks(self, component: str | None = None) -> tuple[int, ...]:
        """The sorted task ids of a component, by default of this one. Raises UsageError for an unknown component."""
        return tuple(self._plan.tasks[self._known(component)])

    def fields(self, component: str | None = None, stream: str = "default") -> tuple[str, ...]:
        """The fields of a stream. Raises UsageError for an unknown component or stream."""
        name = self._known(component)
        streams = self._plan.components[name].streams
        if stream not in streams:
            fix = did_you_mean(stream, streams)
            raise UsageError(f"'{name}' has no stream {stream!r}, only {sorted(streams)}", fix)
        return streams[stream].fields

    def secret(self, name: str) -> str:
        """What is kept under that name on this machine, as it is now; it is not part of the topology.

        In tests: `secrets={name: text}`. On a cluster: the file NAME (mode 0600) in the directory that the supervisor
        was given by --secrets, or RAINBAND_SECRET_NAME in its environment. Raises UsageError when there is none,
        NotAllowed when others can read the file.
        """
        return self._secrets.find(name)

    def report_error(self, error: BaseException) -> None:
        """Record an error as if it had been raised, without failing anything. Raises UsageError for what is none."""
        if not isinstance(error, BaseException):
            raise UsageError(
                f"'{self.component}' reported {error!r:.80}, which is no exception",
                f"Write report_error(ValueError({error!r:.80}))",
            )
        if self._report_error is not None:
            self._report_error(error)

    def _known(self, component: str | None) -> str:
        name = self.component if component is None else component
        if name not in self._plan.components:
            fix = did_you_mean(name, self._plan.components)
            raise UsageError(f"no component {name!r} in topology '{self.topology}'", fix)
        return name

    def __repr__(self) -> str:
        return f"TopologyContext({self.topology}: {self.component} task {self.task_id})"
