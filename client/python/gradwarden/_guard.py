"""The guard of one rank of a PyTorch trainer: gradients in host memory, ranks from torch.distributed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from . import _core
from ._core import Error, StepOutcome
from ._device_path import DevicePath, Pending
from ._mirror import Mirror
from ._monitor import Monitor, log
from ._layout import Hints, Shard, find, hints_of
from ._layout_sources import Source
from ._names import Groups, Tensors, grouping, named_tensors, taking_gradients
from ._optimizers import Given, Optimizers
from ._options import fill, guard_options
from ._ranks import Ranks
from ._replicas import warn_of_differing
from ._scaling import LossScale, loss_scale_of
from ._slots import Slot, problem_of
from ._torch_path import TorchPath

if TYPE_CHECKING:
    import numpy

_STATE_VERSION = 1
_LOOK_EVERY = 100  # steps, at which the model is asked whether its parameters are still those that were bound


class Guard:
    """Sits between backward() and the optimizer's step.

        guard = gradwarden.Guard(model, optimizer, max_norm=1.0, skip="3x-rolling-mean")
        ...
        loss.backward()
        guard.step(loss=loss)  # in place of clip_grad_norm_() and optimizer.step()

    The guard reads the gradients once, decides with the other ranks of torch.distributed, clips in place, and steps the
    optimizers: all of them, or on a skip none. Where parameters accumulate gradients over several backward passes, call
    step() when the optimizer is to be stepped. Without an optimizer, call optimizer.step() yourself if should_update of
    the outcome is true.

    One guard per process; all calls from the training loop's thread; making one, bind() and step() are collective: every
    rank makes them. Raises gradwarden.Error on misuse, but never for what only concerns monitoring.
    """

    last: StepOutcome | None
    """The outcome of the last step; None before the first."""

    def __init__(
        self,
        model: Tensors | None = None,
        optimizer: Given = None,
        *,
        skip: str | None = None,
        groups: Groups | None = None,
        observe: str | Iterable[str] = (),
        daemon: str = "",
        run: str = "",
        history_path: str = "",
        flight_directory: str = "",
        ca_file: str = "",
        certificate_file: str = "",
        key_file: str = "",
        token_file: str = "",
        spool_directory: str = "",
        mirror: Any = None,
        history_length: int = 10_000,
        process_group: Any = None,
        layout: Mapping[str, Shard] | None = None,
        distinct: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """
        model: a module, or pairs of a name and a tensor. Looked at in the first step, so that it may be moved or wrapped
            after this. How its parameters are sharded is found out: DistributedDataParallel, FullyShardedDataParallel,
            fully_shard, parallelize_module, other DTensors, and mixtures of them.
        optimizer: one or several (a list), or None: the caller steps it. Fused ones divide the gradients themselves.
        skip: which steps not to take, in words: "3x-rolling-mean", "z-score-6", "robust-z-score-6", "above-100",
            "non-finite", several joined by commas. Non-finite steps are skipped in any case, but with skip_non_finite=False.
        groups: which tensors share statistics: "layer" (the default), "module", "tensor", a dict from patterns of names to
            groups (what no pattern matches goes by layer), or a function from a name to a group.
        observe: "parameters": their statistics too, in every 10th step or as observe_others_every says.
        daemon: host:port of gradwardend. With it, history_path (a local history file, which `gradwarden show` reads) or
            flight_directory goes run, the stable name of the run.
        ca_file, certificate_file, key_file, token_file: for a daemon that asks for TLS and tokens: PEM files of its
            authority, of a certificate to show and its key; a file that holds the token. Where one is empty,
            GRADWARDEN_CA_FILE, GRADWARDEN_CERT, GRADWARDEN_KEY and GRADWARDEN_TOKEN_FILE count.
        spool_directory: a folder for reports that the daemon has not acknowledged: those of a trainer that is killed are
            delivered by the run's next attempt on this host.
        mirror: where scalars and events also go, as Guard.mirror() takes it.
        history_length: steps that `history` holds.
        process_group: of gloo, with the ranks that share the gradients; None: a new one of all ranks. Where gradients are on
            a GPU it must have all ranks.
        layout: a gradwarden.Shard by pattern of names, for tensors that are parts of whole ones unknown to torch.
        distinct: by pattern of names, the process group in which each rank has a tensor of its own under the same name,
            as expert parallel ones are; or a label of this rank's own.
        options: those of the C++ GuardOptions by name, the same on every rank: max_norm, norm_type, clip_rule, clip_value,
            value_limit, group_rules, adaptive_clip, window, warmup, shadow, ... `threads` is torch.get_num_threads().
        """
        self._ranks = Ranks(process_group)
        reporting = {"daemon": daemon, "run": run, "history_path": history_path, "flight_directory": flight_directory}
        credentials = {
            "ca_file": ca_file,
            "certificate_file": certificate_file,
            "key_file": key_file,
            "token_file": token_file,
            "spool_directory": spool_directory,
        }
        problem = ""
        try:
            self._hints: Hints = hints_of(layout, distinct)
            self._optimizers = Optimizers(optimizer)
            self._group_of = grouping(groups)
            self._monitor = Monitor(self._ranks.rank, history_length)
            self._tensors = model if model is None or isinstance(model, torch.nn.Module) else named_tensors(model)
            settings, self._reads_parameters = guard_options(options, skip, observe)
            if mirror is not None:
                self.mirror(mirror)
        except Error as error:
            problem, settings = str(error), _core.GuardOptions()
        reporter = self._reporter(problem, reporting, credentials)
        self._local_every = settings.local_every
        self._norm_type = settings.norm_type
        # What scales each tensor by itself cannot be told to a fused optimizer: on a GPU the core scales then.
        self._per_group = settings.value_limit > 0 or settings.adaptive_clip > 0 or len(settings.group_rules) > 0
        self._reduces = settings.on_spike == _core.SpikeAction.REDUCE_LEARNING_RATE
        self._core = _core.RankGuard(settings, reporter, self._ranks.rank, self._ranks.size, self._ranks.exchange())
        self._parameters: dict[str, torch.Tensor] = {}  # by name
        self._sources: list[Source] = []
        self._slots: list[Slot] = []
        self._follower: _core.Follower | TorchPath | DevicePath = _core.Follower([], [])
        self._bound = False
        self._views: dict[str, int] = {}  # addresses of gradients before the reduction, where those are not in .grad
        self._absent = 0  # tensors without a gradient in the last step
        self._steps_since_bind = 0
        self._steps = 0
        self.last = None

    def bind(self, tensors: Tensors | None = None) -> None:
        """Looks at the model again, or at another one: a module, or any (name, tensor) whose .grad is to be watched.

        Needed only to replace what the guard was made with, and on several ranks when parameters come or go. Tensors that
        take no gradient are left out.
        """
        problem = ""
        try:
            if tensors is not None:
                self._tensors = tensors if isinstance(tensors, torch.nn.Module) else named_tensors(tensors)
            parameters = self._listed()
            problem = next(filter(None, (problem_of(name, tensor) for name, tensor in parameters.items())), "")
            sources = [] if problem else find(parameters, self._tensors, self._hints)
        except Error as error:
            problem = str(error)
        self._bound = False
        self._ranks.agree(problem)
        self._parameters, self._sources = parameters, sources
        self._warn_of_strangers()

    def step(
        self,
        step: int | None = None,
        loss: torch.Tensor | float | None = None,
        *,
        batch_ids: Any = (),
        scaler: torch.amp.GradScaler | None = None,
        learning_rate: float | None = None,
        loss_scale: float | None = None,
    ) -> StepOutcome:
        """One optimizer step. Raises Error on gradients that cannot be read; nothing has changed then on this rank.

        step: its number; counts by itself from 0 if not given.
        loss: for the report; a tensor that is not in host memory is left out, as reading it would wait for its device.
        batch_ids: one or several texts or numbers that say what data the step saw.
        scaler: a torch.amp.GradScaler: in place of its unscale_() and step(); call scaler.update() afterwards, as ever. A
            spike that is skipped does not move its scale, a non-finite step does. Gradients come out unscaled, but for a
            skipped step.
        learning_rate: for the report; that of the optimizer's first group if not given.
        loss_scale: what the gradients carry as a factor, without a scaler.
        """
        self._make_ready()
        scale = loss_scale_of(scaler, loss_scale, self._optimizers)
        self._find()
        if self._steps_since_bind == 0:
            warn_of_differing(self._ranks, self._slots)
        number = self._steps if step is None else int(step)
        if isinstance(self._follower, DevicePath):
            waits = scaler is not None or self._reduces or not self._follower.optimizer_scales
            self._follower.expect(loss, waits or self._optimizers.must_not_begin_with_a_skip())
        outcome = (self._core if isinstance(self._follower, _core.Follower) else self._follower).step(
            number,
            self._monitor.number(loss),
            self._monitor.number(self._optimizers.learning_rate() if learning_rate is None else learning_rate),
            scale.value,
            scale.unscaled,
            self._optimizers.scale_gradients,
            self._monitor.words(batch_ids),
        )
        self._steps = number + 1
        self._steps_since_bind += 1
        self.last = outcome
        self._note(outcome)
        self._update(outcome, scale)
        return outcome

    def _note(self, outcome: StepOutcome | None) -> None:
        """What ended: this step, or on a GPU whatever has come to its end by now."""
        ended = self._follower.finished() if isinstance(self._follower, DevicePath) else [outcome] if outcome else []
        for one in ended:
            self._monitor.note(one)

    def _update(self, outcome: StepOutcome, scale: LossScale) -> None:
        if isinstance(outcome, Pending) and isinstance(self._follower, DevicePath):
            self._optimizers.step_on_device(self._follower.found_inf, self._follower.grad_scale)
            return
        self._optimizers.step(scale.allows(outcome), outcome)
        scale.finish(outcome)

    def observe_local(self) -> None:
        """Takes statistics of this rank's own gradients, in .grad before any reduction, in every local_every-th step.

        For trainers that reduce the gradients themselves; under DDP gradwarden.ddp.observe_local_hook() does it.
        """
        self._make_ready()
        if self._observes():
            self._find()
            if not self._views:
                self._follower.place_local(self._core)
            self._take_local({})

    @property
    def history(self) -> dict[str, numpy.ndarray[Any, Any]]:
        """The last steps by name of the value (step, loss, grad_norm, decision, threshold, ...); needs numpy."""
        return self._monitor.history.arrays()

    def mirror(self, writer: Any, *, every: int = 1) -> None:
        """Scalars of every `every`-th step and all events go to `writer` too: on the ranks that call this.

        A TensorBoard SummaryWriter, a W&B run (values join the row that the trainer logs next), the module mlflow with an
        active run, or what has their add_scalar(), log() or log_metrics(). What it raises is logged once, and no more.
        """
        self._monitor.mirrors.append(Mirror(writer, every))

    def mark_checkpoint(self, step: int | None = None) -> None:
        """Tells the daemon that the checkpoint of `step` (the last one if not given) is complete. Any rank may call it."""
        self._core.mark_checkpoint(max(0, self._steps - 1) if step is None else int(step))

    def state_dict(self) -> dict[str, Any]:
        """What decides (windows, averages, counters), to be kept with the trainer's checkpoint: plain types and bytes."""
        return {"version": _STATE_VERSION, "steps": self._steps, "core": self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """After it the guard decides, bit for bit, as the saved one would have. Raises Error, and changes nothing, if not."""
        if not isinstance(state, Mapping) or not {"version", "steps", "core"} <= set(state):
            raise Error("load_state_dict: this is no state of a guard; allowed: what state_dict() gave")
        if state["version"] != _STATE_VERSION:
            raise Error(f"load_state_dict: the state has version {state['version']!r}; allowed: {_STATE_VERSION}")
        steps = int(state["steps"])
        if isinstance(self._follower, DevicePath):
            self._follower.restore_state(bytes(state["core"]))
        else:
            self._core.restore_state(bytes(state["core"]))
        self._steps = steps

    def close(self) -> bool:
        """Ends the guard and sends what is left of its reports, within a second. True if nothing was lost."""
        if isinstance(self._follower, DevicePath) and self._bound:
            self._follower.flush()
            self._note(None)
        self._bound = False
        self._slots = []
        return self._core.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reporter(
        self, problem: str, reporting: dict[str, str], credentials: dict[str, str]
    ) -> _core.ReporterOptions | None:
        """The core's options. What is wrong on one rank ends alike on all: the rest of the making is collective."""
        reporting = {name: str(value) for name, value in reporting.items()}
        wanted = any(reporting.values())
        if not problem and wanted and not reporting["run"]:
            problem = "guard: daemon, history_path and flight_directory need run, the name of the run"
        if any(run != reporting["run"] for run in self._ranks.agree(problem, reporting["run"])):
            raise Error("guard: run is not the same on every rank; allowed: one name, or none on all")
        credentials = {name: str(value) for name, value in credentials.items()}
        return fill(_core.ReporterOptions(), {**reporting, **credentials}) if wanted else None

    def _listed(self) -> dict[str, torch.Tensor]:
        if self._tensors is None:
            raise Error("guard: it has no model; make it with one, or call bind(model)")
        return taking_gradients(named_tensors(self._tensors))

    def _warn_of_strangers(self) -> None:
        known = {id(parameter) for parameter in self._parameters.values()}
        strangers = sum(p.requires_grad and id(p) not in known for p in self._optimizers.parameters())
        if strangers:
            self._monitor.once(f"the optimizer steps {strangers} parameters that the model does not have, unguarded")

    def _observes(self) -> bool:
        """Whether the core takes local statistics in the coming step; it counts steps from bind."""
        return self._steps_since_bind % self._local_every == 0

    def _make_ready(self) -> None:
        if not self._parameters:
            self.bind()
        if not self._bound:
            self._bind_core({})

    def _find(self) -> None:
        """Looks up where the gradients are; binds again, or raises, if the parameters are others."""
        for _ in range(len(self._slots) + 2):
            misfit = self._follower.find_gradients(self._core)
            if misfit < 0 and self._reads_parameters:
                misfit = self._follower.find_parameters(self._core)
            if misfit < 0 and self._scales_otherwise():
                self._bind_again(misfit, "an optimizer became fused, or is so no longer")
                continue
            if misfit < 0 and not self._has_changed():
                break
            if misfit < 0 or not self._slots[misfit].mend():
                self._bind_again(misfit)
        self._follower.place(self._core)
        if self._slots and self._follower.absent == len(self._slots):
            self._monitor.once("no parameter has a gradient: step() comes before backward(), or after zero_grad()")

    def _has_changed(self) -> bool:
        """Asks the model where something hints at it; most steps do not look."""
        absent = self._follower.absent
        hints = (self._optimizers.have_changed(), absent != self._absent, self._steps_since_bind % _LOOK_EVERY == 0)
        self._absent = absent
        if not any(hints):
            return False
        now = self._listed()
        return now.keys() != self._parameters.keys() or any(
            tensor is not self._parameters[name] for name, tensor in now.items()
        )

    def _optimizer_scales(self) -> bool:
        return self._optimizers.scale_gradients and not self._per_group

    def _scales_otherwise(self) -> bool:
        """Than was bound: on a GPU that is fixed at bind."""
        return isinstance(self._follower, DevicePath) and self._follower.optimizer_scales != self._optimizer_scales()

    def _bind_again(self, misfit: int, what: str = "the parameters are not those that were bound") -> None:
        if misfit >= 0:
            slot = self._slots[misfit]
            gradient = slot.parameter.grad
            problem = "" if gradient is None else problem_of(slot.name, gradient)
            if problem:
                raise Error(problem)
            what = f"tensor {slot.name!r} changed its dtype or shape"
        if self._ranks.size > 1:  # the other ranks may not have seen it
            raise Error(f"{what}; call bind() again, on every rank")
        log.info("%s; the guard binds again", what)
        self.bind()
        self._bind_core({})

    def _bind_core(self, views: dict[str, torch.Tensor]) -> None:
        """Collective. `views`: by name, the memory of this rank's own gradient before the reduction, if not in .grad."""
        self._bound = False
        slots: list[Slot] = []
        parameters: list[torch.Tensor] = []
        outside = on_gpu = False
        try:
            slots = [
                Slot(source, piece, self._group_of(piece.path), views.get(source.name))
                for source in self._sources
                for piece in source.pieces
            ]
            problem = next((slot.problem for slot in slots if slot.problem), "")
            on_gpu = not problem and DevicePath.fits(slots)
            outside = not on_gpu and TorchPath.needed(slots)
            if self._reads_parameters and not problem:
                if outside:
                    raise Error("guard: what reads parameters needs them, and the gradients, in host memory")
                parameters = [slot.held_parameter() for slot in slots]
        except Error as error:
            problem = str(error)
        if len(set(self._ranks.agree(problem, on_gpu))) > 1:
            raise Error("guard: gradients are on a GPU on some ranks and elsewhere on others; allowed: alike on all")
        gradients = [slot.shard() for slot in slots]
        local = [slot.local_shard() for slot in slots if slot.in_bucket or not views]
        held = [slot.parameter_shard(memory) for slot, memory in zip(slots, parameters)]
        if on_gpu:
            state = self._state()
            path = DevicePath(self._core, slots, self._ranks.size, self._optimizer_scales())
            path.bind(gradients, local, held, state, parameters)
            self._follower = path
        else:
            self._core.bind(gradients, local, held)
            sources = [slot.source for slot in slots]
            self._follower = (
                TorchPath(self._core, slots, self._norm_type) if outside else _core.Follower(sources, parameters)
            )
        for slot in slots:
            slot.forget()
        self._slots = slots
        self._views = {name: view.data_ptr() for name, view in views.items()}
        self._steps_since_bind = 0
        self._bound = True

    def _state(self) -> bytes:
        on_gpu = isinstance(self._follower, DevicePath)
        return self._follower.save_state() if on_gpu else self._core.save_state()

    def _take_local(self, views: dict[str, torch.Tensor]) -> None:
        """`views` as in _bind_core(), and in the memory that was bound."""
        if not isinstance(self._follower, _core.Follower):
            self._follower.observe_local(views)
        else:
            self._core.observe_local()

    def _names_of(self, tensors: Iterable[torch.Tensor]) -> list[str | None]:
        if not self._parameters:
            self.bind()
        known = {id(parameter): name for name, parameter in self._parameters.items()}
        return [known.get(id(tensor)) for tensor in tensors]

    def _lies_in(self, views: dict[str, torch.Tensor]) -> bool:
        """Whether the bound memory of the gradients before their reduction is that of the views."""
        return self._views == {name: view.data_ptr() for name, view in views.items()}
