"""The guard of one rank of a PyTorch trainer: gradients in host memory, ranks from torch.distributed."""

import torch

from . import _core
from ._core import Error
from ._options import fill
from ._layout import find
from ._ranks import Ranks
from ._replicas import warn_of_strangers
from ._slots import Slot, problem_of


class Guard:
    """Sits between backward() and optimizer.step().

    Options are those of the C++ GuardOptions by name (max_norm, skip_above_rolling_mean, ...), the same on every rank.
    With `run` and `daemon` (host:port) or `history_path` each step is reported or kept in a local history file. One
    guard per process; all calls from the training loop's thread; making one, bind() and step() are collective. Raises
    gradwarden.Error on misuse.
    """

    def __init__(
        self,
        *,
        daemon="",
        run="",
        history_path="",
        flight_directory="",
        process_group=None,
        distinct=None,
        layout=None,
        **options,
    ):
        self._ranks = Ranks(process_group)
        self._hints = {"distinct": distinct, "layout": layout}
        reporting = {"daemon": daemon, "run": run, "history_path": history_path, "flight_directory": flight_directory}
        settings, reporter = self._settings(options, reporting)
        self._local_every = settings.local_every
        self._core = _core.RankGuard(settings, reporter, self._ranks.rank, self._ranks.size, self._ranks.exchange())
        self._sources = {}  # by name
        self._slots = []
        self._bound = False
        self._steps_since_bind = 0
        self._steps = 0

    def bind(self, tensors):
        """Names what step() reads: a module, or pairs (name, tensor) whose .grad the guard is to watch.

        Tensors that take no gradient are left out. How the parameters are sharded is found out (DistributedDataParallel,
        FullyShardedDataParallel, fully_shard, parallelize_module, other DTensors); `distinct` and `layout` of the guard
        tell what cannot be. The memory of the gradients is looked up when it is first needed, in the first step or
        observation. Call it again, on every rank, when parameters come or go.
        """
        sources, problem = {}, ""
        try:
            sources = find(tensors, **self._hints)
            problems = [problem_of(name, source.parameter) for name, source in sources.items()]
            problem = next(filter(None, problems), "")
            if not sources:
                problem = "bind: no tensor that takes a gradient; allowed: one or more"
        except Error as error:
            problem = str(error)
        self._bound = False
        self._ranks.agree(problem)
        self._sources = sources

    def step(self, step=None, loss=None, *, learning_rate=None, loss_scale=None, batch_ids=()):
        """Reads the reduced gradients, decides with the other ranks and clips in place.

        Call optimizer.step() only if should_update of the outcome is true. `step` counts by itself if not given. The
        loss may be a tensor; one that is not in host memory is left out, as reading it would wait for its device.
        """
        self._make_ready()
        self._settle()
        if self._steps_since_bind == 0:
            warn_of_strangers(self._ranks, self._slots)
        number = self._steps if step is None else int(step)
        outcome = self._core.step(
            number, _number(loss), learning_rate, loss_scale, [str(batch) for batch in batch_ids]
        )
        self._steps = number + 1
        self._steps_since_bind += 1
        return outcome

    def observe_local(self):
        """Takes statistics of this rank's own gradients, in .grad before any reduction, in every local_every-th step.

        For trainers that reduce the gradients themselves; under DDP gradwarden.ddp.observe_local_hook() does it.
        """
        self._make_ready()
        if self._observes():
            self._settle()
            self._core.observe_local()

    def save_state(self):
        """What decides, as bytes: to be kept with the trainer's checkpoint."""
        return self._core.save_state()

    def restore_state(self, state):
        """After it the guard decides, bit for bit, as the saved one would have."""
        self._core.restore_state(bytes(state))

    def close(self):
        """Ends the guard and sends what is left of its reports, within a second. True if nothing was lost."""
        self._bound = False
        self._slots = []
        return self._core.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _settings(self, options, reporting):
        """The core's structs. What is wrong on one rank ends alike on all: the rest of the making is collective."""
        reporting = {name: str(value) for name, value in reporting.items()}
        wanted = any(reporting.values())
        settings, reporter, problem = _core.GuardOptions(), _core.ReporterOptions(), ""
        try:
            fill(settings, options)
            fill(reporter, reporting)
            if wanted and not reporting["run"]:
                problem = "guard: daemon, history_path and flight_directory need run, the name of the run"
        except Error as error:
            problem = str(error)
        if any(run != reporting["run"] for run in self._ranks.agree(problem, reporting["run"])):
            raise Error("guard: run is not the same on every rank; allowed: one name, or none on all")
        return settings, reporter if wanted else None

    def _observes(self):
        """Whether the core takes local statistics in the coming step; it counts steps from bind."""
        return self._steps_since_bind % self._local_every == 0

    def _make_ready(self):
        if not self._sources:
            raise Error("guard: bind() comes first; call it with the model")
        if not self._bound:
            self._bind_core({})

    def _settle(self):
        for slot in self._slots:
            slot.settle()

    def _bind_core(self, views):
        """Collective. `views`: by name, the memory of a gradient before and after the reduction."""
        self._bound = False
        slots = [Slot(source, views.get(name)) for name, source in self._sources.items()]
        self._ranks.agree(next((slot.problem for slot in slots if slot.problem), ""))
        local = [shard for slot in slots if slot.in_bucket or not views for shard in slot.shards()]
        self._core.bind([shard for slot in slots for shard in slot.shards()], local)
        self._slots = slots
        self._steps_since_bind = 0
        self._bound = True

    def _names_of(self, tensors):
        known = {id(source.parameter): name for name, source in self._sources.items()}
        return [known.get(id(tensor)) for tensor in tensors]

    def _lies_in(self, views):
        """Whether the bound memory is that of the views."""
        bound = {slot.name: slot.memory.data_ptr() for slot in self._slots if slot.in_bucket}
        return bound == {name: view.data_ptr() for name, view in views.items()}


def _number(loss):
    if isinstance(loss, torch.Tensor):
        return loss.item() if loss.device.type == "cpu" else None
    return None if loss is None else float(loss)
